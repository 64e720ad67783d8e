"""The validation and the test split."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from slug.data import evaluation_sets
from slug.data.splits import validation_mask


@st.composite
def picture_sets(draw):
    """Labels, groups and seen flags of an evaluation; a group belongs to one class."""
    groups = draw(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 4)), min_size=1, max_size=20))
    rows = [(label, seen, f"g{i}") for i, (label, seen, size) in enumerate(groups) for _ in range(size)]
    rows = draw(st.permutations(rows))
    labels, seen, names = zip(*rows, strict=True)
    empty = torch.empty(len(rows), 0)
    return evaluation_sets.PictureSet(empty, torch.tensor(labels), [], torch.zeros(4), list(names), torch.tensor(seen), 0)


def sides_of(pictures, seed):
    """{(label, seen): {group: splits its pictures lie in}}, True for the validation split."""
    sides = {}
    rows = zip(
        pictures.groups,
        validation_mask(pictures, seed).tolist(),
        pictures.labels.tolist(),
        pictures.seen.tolist(),
        strict=True,
    )
    for group, mine, label, seen in rows:
        sides.setdefault((label, seen), {}).setdefault(group, set()).add(mine)
    return sides


@given(picture_sets(), st.integers(0, 100))
def test_the_split_is_drawn_by_the_seed_alone(pictures, seed):
    mask = validation_mask(pictures, seed)
    assert mask.dtype == torch.bool and torch.equal(mask, validation_mask(pictures, seed))


@given(picture_sets(), st.integers(0, 100))
def test_no_source_image_is_in_both_splits(pictures, seed):
    for groups in sides_of(pictures, seed).values():
        assert all(len(side) == 1 for side in groups.values())


@given(picture_sets(), st.integers(0, 100))
def test_half_of_the_source_images_of_each_class_are_for_validation(pictures, seed):
    for groups in sides_of(pictures, seed).values():
        chosen = sum(True in side for side in groups.values())
        assert chosen in ([0, 1] if len(groups) == 1 else [len(groups) // 2])


@pytest.fixture(params=["celeba", "imagenet"])
def pictures(request, tiny_world, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    if request.param == "celeba":
        return evaluation_sets.load_celeba(tiny_world / "celeba", transform)
    return evaluation_sets.load_imagenet(tiny_world / "ImageNet" / "val", transform)


def test_every_class_of_the_world_is_in_both_splits(pictures):
    mask = validation_mask(pictures, 0)
    for side in (mask, ~mask):
        assert set(pictures.labels[side].tolist()) == set(range(len(pictures.names)))


def test_the_splits_of_the_world_share_no_source_image(pictures):
    mask = validation_mask(pictures, 0).tolist()
    inside, outside = ({g for g, m in zip(pictures.groups, mask, strict=True) if m == side} for side in (True, False))
    assert not inside & outside and len(inside) > 10


def test_another_seed_splits_the_world_in_another_way(pictures):
    assert not torch.equal(validation_mask(pictures, 0), validation_mask(pictures, 1))
