"""The registry of methods."""

import dataclasses
import subprocess
import sys

import pytest
import tiny

from slug import methods
from slug.core import variants
from slug.errors import SlugError
from slug.methods import CLIP, PIPELINE, Method


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, so that a test may add to it."""
    methods.names()
    monkeypatch.setattr(methods, "_registry", dict(methods._registry))


def test_the_registry_needs_no_torch():
    code = "import sys, slug.methods; slug.methods.names(); assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tiny.ROOT / "src")


def test_baselines_of_a_clip_are_in_the_order_of_tables():
    wanted = ["ft", "ga", "gaft", "salun", "ssd", "ga_o", "gaft_o", "salun_o", "ssd_o"]
    wanted += [
        "ccup",
        "slug_null",
        "kodge",
        "ft_retained",
        "tsa",
        "task_negation",
        "razor",
        "razor_rounds",
        "nest",
        "cliperase",
    ]
    assert methods.names(CLIP, searched=False) == wanted


def test_methods_of_slug_come_first():
    assert methods.names(CLIP)[:4] == methods.names(CLIP, searched=True) == ["slug", "slug_o", "slug_w", "slug_ws"]
    assert methods.names(PIPELINE, searched=False) == ["uce", "esd", "rece", "speed", "oce"]


def test_each_method_says_which_gradients_it_reads():
    def read(name):
        return [v.gradient for v in methods.get(name).gradients]

    assert read("slug_ws") == ["calc_grad_ws"] and read("ft") == [] and read("ga_o") == []
    assert read("salun") == ["calc_grad"] and read("salun_o") == ["calc_grad_o"]
    assert read("ssd") == ["calc_importance"] and read("ssd_o") == ["calc_importance_o"]


def test_an_unknown_method_is_refused():
    with pytest.raises(SlugError, match="no method is called 'gaa'; choose from slug, "):
        methods.get("gaa")


def test_a_method_may_be_registered_twice_but_not_another_of_its_name(registry):
    found = methods.get("ga")
    assert methods.register(found) is found
    with pytest.raises(SlugError, match="there is a method 'ga' already"):
        methods.register(dataclasses.replace(found, label="another"))


def test_a_new_method_stands_among_the_others(registry):
    methods.register(Method("mine", "Mine", "nobody", (CLIP,), 22, lambda *a: iter(())))
    assert methods.names(CLIP, searched=False)[:4] == ["ft", "ga", "gaft", "mine"]


def test_the_contrastive_form_of_a_method_follows_it(registry):
    methods.register_forms(Method("mine", "Mine", "nobody", (CLIP,), 50, lambda *a: iter(())))
    assert methods.get("mine_o").variant == variants.Variant(contrastive=True)
    assert methods.get("mine_o").label == "Mine, contrastive forget loss"
