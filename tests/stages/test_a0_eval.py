"""Zero-shot evaluation as a command, against an evaluation written out."""

import json

import pytest
import tiny
import torch

from slug.data import evaluation_sets
from slug.evaluation import zeroshot

STAGES = {
    "a0_eval_celeba": ("--data-root", "celeba", evaluation_sets.load_celeba, ["{}."]),
    "a0_eval_imagenet": ("--imagenet-val", "ImageNet/val", evaluation_sets.load_imagenet, zeroshot.object_templates()),
}


@pytest.fixture(scope="module", params=STAGES)
def done(request, tiny_world, taught_clip, tmp_path_factory):
    """The record of a stage, and whether a plain evaluation classifies each picture right: {"seen": [], "unseen": []}."""
    flag, part, load, prompts = STAGES[request.param]
    out, model = tmp_path_factory.mktemp("eval"), ["--device", "cpu", "--model", f"local-dir:{taught_clip / 'open_clip'}"]
    tiny.run(request.param, flag, tiny_world / part, *model, "--result-dir", out, "--workers", 0)
    record = json.loads(next((out / "clip").glob("*.json")).read_text())
    clip = tiny.load(taught_clip)
    pictures = load(tiny_world / part, clip.transform)
    correct = {"seen": [], "unseen": []}
    with torch.no_grad():
        texts = [clip.encode_text(clip.tokenize([p.format(n) for p in prompts])).mean(0) for n in pictures.names]
        cosines = clip.encode_image(pictures.images) @ torch.nn.functional.normalize(torch.stack(texts), dim=1).T
    for row, label, seen in zip(cosines, pictures.labels.tolist(), pictures.seen.tolist(), strict=True):
        rivals = [c for c in range(len(texts)) if pictures.blocks[c] == pictures.blocks[label]]
        correct["seen" if seen else "unseen"].append(max(rivals, key=lambda c, row=row: row[c]) == label)
    return record, correct


@pytest.mark.parametrize("kind", ["seen", "unseen"])
def test_accuracy_is_that_of_a_plain_evaluation(done, kind):
    record, correct = done
    hits = correct[kind]
    assert record[kind]["pictures"] == len(hits) and record[kind]["acc1"] == pytest.approx(sum(hits) / len(hits))


def test_all_pictures_are_counted(done):
    record, correct = done
    hits = correct["seen"] + correct["unseen"]
    assert record["all"]["pictures"] == len(hits) and record["all"]["acc1"] == pytest.approx(sum(hits) / len(hits))
    assert record["all"]["acc1"] > 0.9


def test_the_record_has_every_setting(done):
    record, _ = done
    assert record["settings"]["eval_batch_size"] == 256 and record["settings"]["device"] == "cpu" and record["broken"] == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("below", ["", "below a file"])
def test_a_result_folder_that_cannot_be_is_told(tmp_path, monkeypatch, capfd, stage, below):
    (tmp_path / "file").write_text("")
    assert "cannot write" in tiny.failure(monkeypatch, capfd, stage, "--result-dir", tmp_path / "file" / below)
