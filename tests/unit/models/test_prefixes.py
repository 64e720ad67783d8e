"""Prefix trees: what texts have in common is computed once, and no feature changes."""

import pytest
import torch
from clip_world import random_edit
from open_clip.model import CustomTextCLIP
from reuse import check_every_stage, whole

from slug.models import in_memory, prefixes, towers
from slug.models.clip import Clip
from slug.models.prefixes import Prefixes

NAMES = ["alien monster", "alien queen", "ant", "ant", "bento box", "big bento box", "medal"]
TEXTS = [t.format(n) for n in NAMES for t in ("{}.", "a photo of a {}", "a photo of the {}.", "the {}")]


def begun(tokens):
    """The different beginnings of texts, listed plainly."""
    return {tuple(row[: n + 1]) for row in tokens.tolist() for n in range(len(row))}


@pytest.mark.parametrize("letters", [1, 2, 5])
@pytest.mark.parametrize(("count", "length"), [(1, 1), (1, 6), (40, 1), (40, 6)])
def test_a_node_is_a_beginning(count, length, letters):
    tokens = torch.randint(0, letters, (count, length), generator=torch.Generator().manual_seed(letters))
    tokens = tokens[prefixes.order(tokens)]
    tree = Prefixes(tokens)
    assert tree.nodes == len(begun(tokens)) == len(tree.words) == len(tree.depths)
    seen = {}
    for text, row in zip(tokens.tolist(), tree.table.tolist(), strict=True):
        for depth, node in enumerate(row):
            assert seen.setdefault(node, tuple(text[: depth + 1])) == tuple(text[: depth + 1])
            assert (int(tree.words[node]), int(tree.depths[node])) == (text[depth], depth)
    assert torch.equal(tree.ends(tree.words), tokens[:, -1])


def test_a_part_of_a_tree_has_places_in_the_whole():
    tokens = torch.randint(0, 3, (60, 5), generator=torch.Generator().manual_seed(0))
    tree = Prefixes(tokens[prefixes.order(tokens)])
    for rows in (torch.arange(60), torch.tensor([3]), torch.tensor([0, 7, 8, 9, 40, 59])):
        part, places = tree[rows], tree.nodes_of(rows)
        assert len(places) == part.nodes and len(places.unique()) == part.nodes and (places.diff() > 0).all()
        assert torch.equal(tree.words[places], part.words) and torch.equal(tree.depths[places], part.depths)


def test_texts_with_common_beginnings_have_the_features_of_the_library(clip):
    """By all layers of the text tower, for all texts, some, and with repeated ones."""
    tokens = clip.tokenize(TEXTS)
    tower = towers.Tower(clip, "language", tokens, batch_size=5, budget=towers.Budget(1.0, clip.device))
    assert (tower.fill() - whole(clip, "language", tokens)).abs().max() < 1e-5
    rows = torch.tensor([20, 3, 7, 11, 12])
    for name in (n for n, e in clip.candidates().items() if e == "language"):
        with random_edit(clip, name).applied(clip):
            wanted = whole(clip, "language", tokens)
            assert (tower.features(start=clip.stage(name)) - wanted).abs().max() < 1e-5, name
            assert (tower.features(rows, clip.stage(name)) - wanted[rows]).abs().max() < 1e-5, name


def test_shared_beginnings_cost_less_and_are_counted(clip):
    tokens = clip.tokenize(TEXTS)
    tower = towers.Tower(clip, "language", tokens)
    tower.features()
    lengths = clip.text_lengths(tokens)
    nodes = sum(len(begun(tokens[lengths == n][:, :n])) for n in lengths.unique().tolist())
    assert sum(n[0] for n in tower.nodes_ran) == nodes < 0.7 * int(lengths.sum())
    assert tower.floating_operations(shared=True) < 0.8 * tower.floating_operations()
    one = towers.Tower(clip, "language", tokens[:1])
    one.features()
    assert one.floating_operations(shared=True) == one.floating_operations()


@pytest.mark.parametrize("clip", ["open_clip"], indirect=True)  # those of transformers are always causal
def test_a_tower_that_is_not_causal_keeps_its_texts_apart(clip, monkeypatch):
    """Whether it is causal is read off the tower."""
    monkeypatch.setattr(clip.module, "attn_mask", None)
    tokens = clip.tokenize(TEXTS[:6])
    assert clip.prefix_stages() is None
    tower = towers.Tower(clip, "language", tokens)
    assert not any(isinstance(inputs, Prefixes) for _, inputs in tower.groups)
    assert (tower.features() - whole(clip, "language", tokens)).abs().max() < 1e-6


@pytest.mark.parametrize("causal", [True, False])
def test_a_text_tower_apart_from_the_model_shares_beginnings_too(causal):
    """open_clip's models with a text tower of their own, such as EVA, whose text is a plain transformer."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"width": 32, "heads": 2, "layers": 2, "no_causal_mask": not causal}
    clip = in_memory.wrap(CustomTextCLIP(32, vision, text).eval())
    assert (clip.prefix_stages() is not None) == causal
    found = check_every_stage(clip, per_stage=2)
    assert found["language"] == ([1, 2, 3] if causal else [0])
    assert {clip.tower(n) for n in clip.parameters if n.startswith("text.")} == {"language"}


def test_a_model_of_unknown_structure_has_no_tree(clip):
    assert Clip.prefix_stages(clip) is None


def test_batches_on_a_cpu_fit_its_caches(clip, monkeypatch):
    """Of texts by the nodes of their tree; the features are the same."""
    tokens = clip.tokenize(TEXTS)
    tower = towers.Tower(clip, "language", tokens, batch_size=100)
    assert all(b == 100 for b in tower.batches)
    wanted = tower.features()
    monkeypatch.setattr(towers, "BATCH_BYTES", 20_000)
    small = towers.Tower(clip, "language", tokens, batch_size=100)
    assert max(small.batches) < 20 and (small.features() - wanted).abs().max() < 1e-6
    pictures = torch.zeros(3, 3, clip.side, clip.side, dtype=torch.uint8)
    assert towers.Tower(clip, "vision", pictures, batch_size=100).batches[0] < 100
