"""Prompts, features, classifiers, ranks and accuracies against the plain formulas."""

import json
import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from slug.data.evaluation_sets import PictureSet
from slug.evaluation import zeroshot

TEXTS = [
    "a",
    "",
    "alien monster.",
    "a photo of a bento box on a plain background, isolated",
    "word " * 40,
    "2nd place medal",
]


def test_trimmed_and_sorted_texts_have_the_features_of_full_padding(clip):
    found = zeroshot.text_features(clip, TEXTS, batch_size=2)
    with torch.no_grad():
        if clip.family == "hf":
            tokens = clip.tokenizer(
                TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
            ).input_ids
            plain = clip.module.text_projection(clip.module.text_model(input_ids=tokens).pooler_output)
        else:
            tokens = clip.tokenizer(TEXTS)
            plain = clip.module.encode_text(tokens)
    assert tokens.shape == (len(TEXTS), 24) and found.shape == (len(TEXTS), 24)
    assert (found - torch.nn.functional.normalize(plain, dim=-1)).abs().max() < 1e-6
    assert (found[0] - found[2]).norm() > 1e-2


def test_prompts_are_name_by_name():
    assert zeroshot.prompts(["a", "b"], ["{}.", "the {}"]) == ["a.", "the a", "b.", "the b"]


def test_a_classifier_is_the_mean_of_unit_prompt_features(clip):
    names, templates = ["alien", "bento box", "ant"], zeroshot.object_templates()
    assert len(templates) == 7
    found = zeroshot.classifier(clip, names, templates, batch_size=4)
    for name, row in zip(names, found, strict=True):
        with torch.no_grad():
            mean = sum(clip.encode_text(clip.tokenize([t.format(name)]))[0] for t in templates)
        assert (row - mean / mean.norm()).abs().max() < 1e-6


def test_picture_features_do_not_depend_on_the_batch(clip):
    images = tiny.pairs(7).images
    found = zeroshot.image_features(clip, images, batch_size=3)
    with torch.no_grad():
        plain = clip.encode_image(images)
    assert (found - plain).abs().max() < 1e-6 and torch.allclose(found.norm(dim=1), torch.ones(7))


def drawn(seed, ties):
    """Features (8, 3), a classifier (9, 3), labels and blocks; with `ties` many cosines are equal to the bit."""
    g = torch.Generator().manual_seed(seed)
    features, weights = torch.randn(8, 3, generator=g), torch.randn(9, 3, generator=g)
    if ties:
        features, weights = features.round(), weights.round()
    return features, weights, torch.randint(9, (8,), generator=g), torch.randint(2, (9,), generator=g)


@given(st.integers(0, 1000), st.booleans())
def test_a_rank_counts_the_classes_of_the_block_that_are_at_least_as_close(seed, ties):
    features, weights, labels, blocks = drawn(seed, ties)
    found = zeroshot.ranks(features, weights, labels, blocks).tolist()
    for i, label in enumerate(labels.tolist()):
        cosines = [float(features[i] @ w) for w in weights]
        rivals = [cosines[c] for c in range(9) if c != label and blocks[c] == blocks[label]]
        assert found[i] == sum(r >= cosines[label] for r in rivals)


@given(st.integers(0, 1000))
def test_a_margin_is_the_distance_to_the_best_other_class_of_the_block(seed):
    features, weights, labels, blocks = drawn(seed, False)
    found = zeroshot.margins(features, weights, labels, blocks).tolist()
    for i, label in enumerate(labels.tolist()):
        cosines = [float(features[i] @ w) for w in weights]
        rivals = [cosines[c] for c in range(9) if c != label and blocks[c] == blocks[label]]
        assert found[i] == pytest.approx(cosines[label] - max(rivals, default=-math.inf), abs=1e-5)


@given(st.integers(0, 1000))
def test_a_guess_is_the_closest_class_of_the_block(seed):
    features, weights, labels, blocks = drawn(seed, False)
    found = zeroshot.guesses(features, weights, labels, blocks).tolist()
    for i, label in enumerate(labels.tolist()):
        rivals = [c for c in range(9) if blocks[c] == blocks[label]]
        assert found[i] == max(rivals, key=lambda c: float(features[i] @ weights[c]))


@pytest.fixture
def two_hundred():
    """Features, a classifier, labels and ranks of 200 random pictures of 20 classes."""
    g = torch.Generator().manual_seed(0)
    features, weights, labels = torch.randn(200, 8, generator=g), torch.randn(20, 8, generator=g), torch.arange(200) % 20
    return features, weights, labels, zeroshot.ranks(features, weights, labels, torch.zeros(20))


def test_accuracies_are_those_of_topk(two_hundred):
    features, weights, labels, rank = two_hundred
    for k, found in zip((1, 5), zeroshot.accuracies(rank), strict=True):
        hit = ((features @ weights.T).topk(k).indices == labels[:, None]).any(1)
        assert found == pytest.approx(hit.float().mean().item())


def test_an_accuracy_is_described_with_its_counts(two_hundred):
    rank = two_hundred[-1]
    correct = int((rank < 1).sum())
    assert zeroshot.describe(rank).startswith(f"{correct / 200:.1%} ({correct}/200, ")


def test_a_model_that_gives_nan_knows_nothing():
    features, weights = torch.full((2, 3), torch.nan), torch.randn(9, 3)
    assert zeroshot.accuracies(zeroshot.ranks(features, weights, torch.tensor([0, 1]), torch.zeros(9))) == (0, 0)


def test_an_evaluation_reports_seen_and_unseen_pictures_apart(clip, tmp_path, capsys):
    seen, names = torch.tensor([True] * 3 + [False] * 5), ["alien", "ant"]
    pictures = PictureSet(tiny.pairs(8).images, torch.arange(8) % 2, names, torch.zeros(2), list("aabbccdd"), seen, 1)
    path = tmp_path / "x.json"
    zeroshot.evaluate_and_report(clip, pictures, ("{}.",), path, batch_size=4, settings={"seed": 7})
    record = json.loads(path.read_text())
    assert {p: record[p]["pictures"] for p in ("all", "seen", "unseen")} == {"all": 8, "seen": 3, "unseen": 5}
    assert (record["seen"]["groups"], record["unseen"]["groups"]) == (2, 3)
    assert record["settings"] == {"seed": 7} and record["broken"] == 1
    assert "2 classes, 1 broken pictures skipped" in capsys.readouterr().out
