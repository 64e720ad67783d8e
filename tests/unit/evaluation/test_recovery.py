"""What may bring back what a pipeline forgot."""

import pytest
import tiny
import torch
from tiny_canvas import OBJECTS, STYLES

from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import canvas_prompts, recovery
from slug.evaluation.canvas_prompts import Concept

ASKED = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=[])
WORDS = {"bell": [("chime", "en"), ("Glocke", "de")]}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_other_words_stand_in_the_concepts_place():
    found = recovery.others(Concept("object", "Bell"), WORDS)
    assert [o.attack for o in found] == ["wording"] * len(recovery.WORDINGS) + ["synonym", "language"]
    assert found[0].prompts(ASKED[:1], "object") == ["a picture of a bell in Noto style"]
    assert found[-1].form == "Glocke (de)" and found[-1].prompts(ASKED[:1], "object") == ["An Glocke image in Noto style."]
    other = recovery.Other("synonym", "x", "", "Nota")
    assert other.prompts(ASKED[:1], "style") == ["An bell image in Nota style."]


def test_the_name_itself_is_no_other_word():
    words = {"palm tree": [("Palm_Tree", "en"), ("palm tree", "fr"), ("palm", "en")]}
    found = [o for o in recovery.others(Concept("object", "palm_tree"), words) if o.attack != "wording"]
    assert [(o.attack, o.word) for o in found] == [("synonym", "palm")]


def test_words_are_read_from_a_table(tmp_path):
    (tmp_path / "words.csv").write_text("name,alias,language\nPalm_Tree,palm,en\n")
    assert recovery.read_words(tmp_path / "words.csv") == {"palm tree": [("palm", "en")]}
    twice = "palm tree,Palm,en\nPalm_Tree, palm ,EN\npalm tree,palma,es\n"
    (tmp_path / "words.csv").write_text(f"name,alias,language\n{twice}")
    assert recovery.read_words(tmp_path / "words.csv") == {"palm tree": [("Palm", "en"), ("palma", "es")]}
    for row in ("palm tree,,en", "palm tree, ,en", "palm tree,palm,", ",palm,en"):
        (tmp_path / "words.csv").write_text(f"name,alias,language\nbell,chime,en\n{row}\n")
        with pytest.raises(SlugError, match=r"row 3 of .* lacks"):
            recovery.read_words(tmp_path / "words.csv")
    (tmp_path / "words.csv").write_text("name,alias\nPalm_Tree,palm\n")
    with pytest.raises(SlugError, match="language"):
        recovery.read_words(tmp_path / "words.csv")


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_low_rank_part_is_the_best_one(rank):
    change = draw(6, 5)
    part = recovery.low_rank(change, rank)
    sizes = torch.linalg.svdvals(change)
    assert torch.linalg.matrix_rank(part) == rank
    assert (change - part).norm().item() == pytest.approx(sizes[rank:].norm().item(), abs=1e-5)


def test_a_vector_is_its_own_low_rank_part_and_a_kernel_keeps_its_shape():
    assert torch.equal(recovery.low_rank(draw(4), 1), draw(4))
    assert recovery.low_rank(draw(4, 3, 2, 2), 1).shape == (4, 3, 2, 2)


def test_what_is_left_of_an_edit():
    edit = Edit({"w": draw(20, 1) @ draw(1, 20, seed=1)}, "w", 2.0)  # of rank 1
    left = {(attack, form): e.changes["w"] for attack, form, e in recovery.weakened(edit)}
    assert len(left) == len(recovery.RANKS) + len(recovery.SHARES)
    assert left["negative of the low-rank part", "rank 1"].norm() < 1e-4
    assert torch.allclose(left["merging", "30% of the original"], 0.7 * edit.changes["w"])


def test_training_on_retained_pictures_gives_a_change_and_leaves_the_pipeline(tiny_pipeline):
    pipeline = tiny.load_pipeline(tiny_pipeline)
    before = pipeline.weights_hash()
    prompts = [r.prompt for r in ASKED[:3]]
    latents = pipeline.latents(prompts, [1, 2, 3])
    one, same, other = (recovery.retained(pipeline, prompts, latents, steps=2, rate=1e-3, seed=s) for s in (0, 0, 1))
    assert pipeline.weights_hash() == before and not any(p.requires_grad for p in pipeline.tensors.values())
    moved = [n for n, c in one.changes.items() if c.abs().max() > 0]
    assert any(n.startswith("unet.") for n in moved) and any(not n.startswith("unet.") for n in moved)
    assert all(torch.equal(one.changes[n], same.changes[n]) for n in moved)
    assert any(not torch.equal(one.changes[n], other.changes[n]) for n in moved)


def test_a_loss_that_is_no_number_is_said(tiny_pipeline):
    pipeline = tiny.load_pipeline(tiny_pipeline)
    latents = torch.full_like(pipeline.latents(["x"], [1]), float("nan"))
    with pytest.raises(SlugError, match="the loss on retained pictures is nan"):
        recovery.retained(pipeline, ["x"], latents, steps=1, rate=1e-5)
    assert not any(p.requires_grad for p in pipeline.tensors.values())
