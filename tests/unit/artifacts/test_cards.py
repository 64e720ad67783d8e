"""Model cards of edited folders and adapters."""

import json
import shutil

import edits
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from wrappers import ROOT

from slug.artifacts import adapters, cards, deltas
from slug.errors import SlugError
from slug.models import vlm


def header_of(metrics, layer="a", **more):
    return {"name": "Noto", "layer": layer, "step": "0.5", "metrics": json.dumps(metrics), **more}


@pytest.fixture(params=tiny.FAMILIES)
def source(request, tiny_clip, tmp_path):
    """A model folder with a card."""
    shutil.copytree(tiny_clip / request.param, tmp_path / "source")
    (tmp_path / "source" / cards.FILE).write_text("---\nlicense: mit\n---\n\n# A fine model\n")
    return tmp_path / "source"


@pytest.fixture
def two(tiny_clip, tmp_path):
    """Two deltas."""
    paths = [tmp_path / f"{name}.delta.safetensors" for name in "ab"]
    for layer, path in enumerate(paths):
        edits.make(tiny_clip, path, layer=layer)
    return paths


def test_the_card_of_an_edited_folder_tells_of_all_its_edits(source, two, tmp_path):
    for path in two:  # one after the other: the base model's card is quoted once all the same
        edited = deltas.apply(path, source if path == two[0] else tmp_path / "edited", tmp_path / "edited")
    found = ModelCard.load(edited / cards.FILE)
    assert found.data.license == "mit" and found.data.base_model and "machine-unlearning" in found.data.tags
    assert found.text.count("forget accuracy @1 2.5% of 40 (test split)") == 2 and found.text.count("# A fine model") == 1
    assert "without a frog, a frog" in found.text and "--delta a.delta.safetensors b.delta.safetensors" in found.text


def test_the_original_card_comes_back_with_the_weights(source, two, tmp_path):
    edited = deltas.apply(two[0], source, tmp_path / "edited")
    one = (edited / cards.FILE).read_text()
    deltas.apply(two[1], edited, edited)
    deltas.revert(two[1], edited, edited)
    assert (edited / cards.FILE).read_text() == one
    deltas.revert(two[0], edited, edited)
    assert edits.contents(edited) == edits.contents(source)


def test_a_card_whose_header_cannot_be_read_stops_the_edit(source, two, tmp_path):
    (source / cards.FILE).write_text("---\nlicense: [\n---\n")
    with pytest.raises(SlugError, match="cannot be read as a model card"):
        deltas.apply(two[0], source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("library", "load"), [("diffusers", "load_lora_weights"), ("peft", "PeftModel.from_pretrained")])
def test_the_card_of_an_adapter_tells_of_its_factors(library, load):
    factors = {"a.fc1": adapters.factor(torch.eye(4), 0.0), "a.fc2": adapters.factor(torch.ones(3, 4), 1e-6)}
    header = header_of({"UA": 0.9, "n_forget": 60}, "a.fc1.weight")
    found = ModelCard(cards.adapter_text(library, "mini", "x.delta.safetensors", header, factors))
    assert found.data.library_name == library and found.data.base_model == "mini" and "lora" in found.data.tags
    assert "# mini without Noto" in found.text and load in found.text
    assert "| `x.delta.safetensors` | Noto | `a.fc1.weight` | 0.5 | UA 90.0% of 60 |" in found.text
    assert "| `a.fc1` | 4 | 0.00% |" in found.text and "| `a.fc2` | 1 | 0.00% |" in found.text


CARD = "---\nlicense: cc-by-sa-4.0\n---\n\n# mine\n"


@pytest.mark.parametrize("family", ["pipeline", "llava"])
@pytest.mark.parametrize("sealed", [False, True])
def test_cards_of_pipelines_and_assistants_say_all_that_a_reader_needs(family, sealed, tiny_canvas, tiny_llava, tmp_path):
    """Base, what was forgotten, figures with counts, the base's licence, and the way back or that there is none."""
    origin = (tiny_canvas if family == "pipeline" else tiny_llava) / family
    source = shutil.copytree(origin, tmp_path / "source")
    (source / cards.FILE).write_text(CARD)
    if family == "pipeline":
        model, metrics = tiny.load_pipeline(tiny_canvas), {"UA": 0.9, "n_forget": 60, "IRA": 0.98, "n_retain": 100}
        said = ["UA 90.0% of 60", "IRA 98.0% of 100"]
    else:
        model = vlm.load(str(origin), str(tiny_llava / "hugging_face"))
        metrics = {"forget_acc": 0.02, "n_forget": 50, "forget_unseen_acc": 0.1, "n_forget_unseen": 20}
        said = ["forget accuracy 2.0% of 50", "of source images that it did not 10.0% of 20"]
    name = next(n for n in model.candidates() if "fc1.weight" in n)
    about = {"name": "Owl", "layer": name, "step": 2.0, "metrics": metrics | {"split": "validation", "method": "slug_w"}}
    deltas.save(tmp_path / "Owl.delta.safetensors", model, {name: torch.ones_like(model.tensors[name]).float()}, **about)
    edited = deltas.apply(tmp_path / "Owl.delta.safetensors", source, tmp_path / "edited", seal=sealed)
    found = ModelCard.load(edited / cards.FILE)
    assert found.data.license == "cc-by-sa-4.0" and found.data.base_model == model.tag
    for words in (f"# {model.tag} without Owl", name, "(validation split)", "That of the base model (cc-by-sa-4.0)", *said):
        assert words in found.text, words
    assert ("This folder is sealed" in found.text) == sealed
    assert ("revert --delta Owl.delta.safetensors" in found.text) == (not sealed)


def test_the_card_of_an_adapter_names_the_licence_of_its_base(tmp_path):
    (tmp_path / cards.FILE).write_text(CARD)
    factors, header = {"a.fc1": adapters.factor(torch.eye(4), 0.0)}, header_of({"UA": 0.9}, "a.fc1.weight")
    license = cards.license_of(tmp_path)
    found = ModelCard(cards.adapter_text("diffusers", "mini", "x", header, factors, license))
    assert found.data.license == "cc-by-sa-4.0" and "That of the base model, `mini` (cc-by-sa-4.0)." in found.text
    assert [cards.license_of(f) for f in ("", tmp_path / "no")] == ["other", "other"]


@pytest.mark.parametrize("name", ["mini-clip", "mini-sd", "mini-llava"])
def test_the_demos_models_have_the_licence_that_notice_says(name):
    assert cards.license_of(ROOT / "data/models" / name) == "cc-by-sa-4.0"
    assert "3. Rendered art and weights: CC BY-SA 4.0" in (ROOT / "NOTICE").read_text()


@pytest.mark.parametrize("method, says", [("slug", "one step on one layer"), ("slug_rounds", "in rounds"), ("uce", "UCE")])
def test_a_card_says_how_the_edit_was_made(method, says):
    text = cards.text("", "mini", {"d": header_of({"method": method, "UA": 0.9})})
    assert says in text and ("one step on one layer" in text) == (method == "slug")
    assert ("- slug" in text) == method.startswith("slug")


@pytest.mark.parametrize(("chosen", "said"), [([["a", 2.0], ["b", 0.5]], "2 + 0.5"), ([["a", 2.0]], "2"), ([], "0.5")])
def test_a_card_says_the_step_of_each_layer(chosen, said):
    text = cards.text("", "mini", {"d": header_of({"method": "slug_rounds", "chosen": chosen, "UA": 0.9})})
    assert f"| {said} | UA 90.0%" in text


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"split": "validation"}, " (validation split)"),
        ({"split": "test"}, " (test split)"),
        ({"half": "select"}, " (validation split)"),  # deltas of earlier versions
        ({"half": "report"}, " (test split)"),
        ({}, ""),
    ],
)
def test_figures_say_their_split(where, said):
    assert cards.figures(header_of({"UA": 0.9, "n_forget": 60, **where})) == f"UA 90.0% of 60{said}"


def test_figures_leave_out_what_was_not_measured():
    assert cards.figures(header_of({"UA": 0.5, "IRA": float("nan"), "CRA": None})) == "UA 50.0%"


def test_figures_name_the_other_edits_of_the_model():
    assert cards.figures(header_of({"UA": 0.5, "together_with": ["Owl", "Lion"]})) == (
        "together with the edits of Owl, Lion: UA 50.0%"
    )


@pytest.mark.parametrize(("layer", "method"), [("a", "slug"), ("a + b", "slug_rounds")])
def test_the_method_of_deltas_of_earlier_versions(layer, method):
    assert cards.method_of(header_of({}, layer)) == method
    assert cards.method_of(header_of({"method": "uce"}, layer)) == "uce"


def test_the_name_of_deltas_of_earlier_versions_is_that_of_the_file():
    header = header_of({})
    del header["name"]
    assert "# mini without Frog" in cards.text("", "mini", {"Frog.delta.safetensors": header})
