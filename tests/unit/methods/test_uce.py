"""UCE against a least-squares solver."""

import math

import pytest
import tiny
import torch

from slug.methods import PipelineMaterial, uce

OWN, NEUTRAL = ["a bell in Noto", "a key in Noto"], ["a bell", "a key"]
OTHERS = ["a dog", "a cat", "a key in Blob"]


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


@pytest.fixture(scope="module")
def edit(pipeline):
    (found,) = uce.candidates(pipeline, PipelineMaterial(OWN, NEUTRAL, OTHERS, [], 0), 2.0)
    return found


def test_the_edit_is_the_least_squares_solution(pipeline, edit):
    c, to, kept = (pipeline.embed(p).flatten(0, 1).double() for p in (OWN, NEUTRAL, OTHERS))
    for name, change in edit.changes.items():
        w = pipeline.tensors[name].double()
        rows = [c * math.sqrt(2.0 / len(OWN)), kept / math.sqrt(len(OTHERS)), math.sqrt(uce.KEEP) * torch.eye(c.shape[1])]
        goal = [to @ w.T * math.sqrt(2.0 / len(OWN)), kept @ w.T / math.sqrt(len(OTHERS)), math.sqrt(uce.KEEP) * w.T]
        best = torch.linalg.lstsq(torch.cat([r.double() for r in rows]), torch.cat(goal)).solution.T
        assert torch.allclose(w + change.double(), best, atol=1e-5), name


def test_the_edit_is_of_all_that_reads_texts_and_says_its_weight(pipeline, edit):
    readers = {n for n in pipeline.tensors if "attn2.to_k" in n or "attn2.to_v" in n}
    assert set(edit.changes) == readers and (edit.layer, edit.step) == ("weight 2", 1)
