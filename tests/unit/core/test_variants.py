"""Variants: two spellings, the files that they name, and what each is computed from."""

import pytest

from slug.core import variants
from slug.core.variants import Variant
from slug.errors import SlugError

SPELLINGS = [
    ("slug", "calc_grad", Variant()),
    ("slug_o", "calc_grad_o", Variant(contrastive=True)),
    ("slug_w", "calc_grad_w", Variant(preconditioned=True)),
    ("slug_ws", "calc_grad_ws", Variant(preconditioned=True, spares_others=True)),
]


@pytest.mark.parametrize(("method", "gradient", "variant"), SPELLINGS)
def test_either_spelling_gives_the_variant(method, gradient, variant):
    assert variants.get(method) == variants.get(gradient) == variant


@pytest.mark.parametrize(("method", "gradient", "variant"), SPELLINGS)
def test_a_variant_knows_both_spellings(method, gradient, variant):
    assert (variant.slug, variant.gradient) == (method, gradient)


@pytest.mark.parametrize("name", ["calc_importance", "calc_importance_o"])
def test_an_importance_is_a_squared_gradient(name):
    assert variants.get(name).squared
    assert variants.get(name).gradient == name


@pytest.mark.parametrize(
    ("side", "name", "file"),
    [
        ("forget", "calc_grad", "forget_grads.pt"),
        ("train", "calc_grad", "train_grads.pt"),
        ("forget", "calc_grad_w", "forget_grads_w.pt"),
        ("train", "calc_grad_w", "train_grads.pt"),
        ("forget", "calc_grad_ws", "forget_grads_ws.pt"),
        ("forget", "calc_grad_o", "forget_grads_o.pt"),
        ("train", "calc_grad_o", "train_grads.pt"),  # `_o` changes the forget loss only
        ("forget", "calc_importance", "forget_grads_importance.pt"),
        ("train", "calc_importance", "train_grads_importance.pt"),
        ("forget", "calc_importance_o", "forget_grads_importance_o.pt"),
    ],
)
def test_names_of_gradient_files(side, name, file):
    assert variants.get(name).file(side) == file


@pytest.mark.parametrize(("method", "gradient", "variant"), SPELLINGS)
def test_a_preconditioned_gradient_is_computed_from_a_plain_one(method, gradient, variant):
    assert variant.plain == Variant(contrastive=variant.contrastive)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SlugError, match=r"no gradient is called 'slug_x'.*slug_ws"):
        variants.get("slug_x")
