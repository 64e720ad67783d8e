"""FID: its formula, its network, and which pictures it compares."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_canvas import OBJECTS, STYLES

from slug.errors import SlugError
from slug.evaluation import canvas_prompts, fid
from slug.evaluation.canvas_prompts import Concept, Request

CONCEPTS = [Concept("style", "Noto"), Concept("object", "bell"), Concept("object", "palm tree")]
ASKED = canvas_prompts.requests(STYLES, OBJECTS, test=[0, 1], validation=[])


def test_frechet_is_the_distance_of_two_normals():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(400, 5)), rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    plain = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert fid.frechet(a, b) == pytest.approx(plain, rel=1e-9)
    assert fid.frechet(a, a) == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------------------------------ which pictures


@pytest.fixture(scope="module")
def dealt():
    return fid.deal(ASKED, CONCEPTS, 100, 70_000)


def test_no_picture_is_dealt_twice(dealt):
    assert len(dealt) == len({(r.prompt, r.seed) for _, r in dealt}) == 100


def test_no_picture_shows_the_concept_that_it_is_dealt_to(dealt):
    assert not any(concept.shown_by([r])[0] for concept, r in dealt)


def test_the_requests_are_dealt_first_and_the_others_have_fresh_seeds(dealt):
    wanted = [r for _, r in dealt]
    assert [r for r in wanted if r.seed < 70_000] == ASKED == wanted[: len(ASKED)]
    assert len({r.seed for r in wanted[len(ASKED) :]}) == 100 - len(ASKED)


def test_concepts_are_dealt_as_many_pictures(dealt):
    count = [sum(c == concept for c, _ in dealt) for concept in CONCEPTS]
    assert max(count) - min(count) <= 1


def test_a_single_concept_is_dealt_pictures_without_it():
    alone = fid.deal(ASKED, CONCEPTS[:1], 20, 70_000)
    assert len({r for _, r in alone}) == 20 and {r.style for _, r in alone} == {"Blob_Old"}


def test_nothing_is_dealt_where_every_cell_shows_every_concept():
    assert fid.deal(ASKED[:1], CONCEPTS[:1], 20, 70_000) == []


@pytest.fixture
def real(tmp_path):
    """A folder of three pictures of each of six cells, of which one style is not asked for."""
    for style, thing, n in itertools.product(["Noto", "Blob_Old", "Other"], ["bell", "palm_tree"], range(3)):
        path = tmp_path / style / thing / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_the_reference_is_of_the_cells_that_are_asked_for(real):
    found = fid.reference(real, [Request("test", "Blob Old", "palm tree", 0), Request("test", "Noto", "bell", 1)], 100)
    assert {p.parts[-3:-1] for p in found} == {("Blob_Old", "palm_tree"), ("Noto", "bell")}
    assert len(found) == len(set(found)) == 6


def test_the_reference_is_drawn_by_the_seed(real):
    wanted = [Request("test", "Noto", "bell", 0), Request("test", "Noto", "palm_tree", 0)]
    found = fid.reference(real, wanted, 6)
    assert fid.reference(real, wanted, 4) == found[:4] and fid.reference(real, wanted, 6, seed=1) != found


def test_too_small_a_reference_is_no_fid(real):
    found = fid.chosen({"slug": CONCEPTS[:1]}, ASKED, 70_000, str(real))
    assert found[:2] == ([], []) and "1000 different pictures a side, and the reference has 6 of" in found[2]


def test_methods_without_a_concept_in_common_have_no_fid(real):
    found = fid.chosen({"slug": CONCEPTS[:1], "uce": CONCEPTS[1:]}, ASKED, 70_000, str(real))
    assert found == ([], [], "FID is left out: no concept was forgotten by every method.")


def test_both_sides_have_as_many_pictures(real, monkeypatch):
    monkeypatch.setattr(fid, "FEWEST", 6)
    dealt, found, remark = fid.chosen({"slug": CONCEPTS[:2], "uce": CONCEPTS[:1]}, ASKED, 70_000, str(real))
    assert len(dealt) == len(found) == 6 and {c for c, _ in dealt} == set(CONCEPTS[:1])
    assert "of 6 different pictures a side" in remark


# ------------------------------------------------------------------------------------------------------------- network


@pytest.fixture(scope="module")
def weights():
    """Of an untrained Inception."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    return inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()


def test_inceptions_pooling_leaves_the_padding_out(weights, tmp_path):
    torch.save(weights, tmp_path / "inception.pth")
    network = fid.inception(tmp_path / "inception.pth")
    seen = {}
    for name in ("Mixed_5b", "Mixed_7c"):
        block = getattr(network.network, name)
        block.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        block.branch_pool.conv.register_forward_pre_hook(lambda _, args, name=name: seen.update({name + ".pool": args[0]}))
    images = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    assert network(images).shape == (2, 2048)
    average = F.avg_pool2d(seen["Mixed_5b"], 3, 1, 1, count_include_pad=False)
    assert torch.allclose(seen["Mixed_5b.pool"], average, atol=1e-5)
    assert torch.equal(seen["Mixed_7c.pool"], F.max_pool2d(seen["Mixed_7c"], 3, 1, 1))


def test_other_weights_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SlugError, match="no weights of FID's Inception"):
        fid.inception(tmp_path / "other.pth")


def test_pictures_of_any_shape_become_square():
    assert fid.resize(16)(Image.new("RGB", (40, 20), (10, 200, 30))).shape == (3, 16, 16)
