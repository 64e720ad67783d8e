"""What judges generated pictures."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_canvas import OBJECTS, STYLES

from slug.data.canvas import classifier_settings
from slug.errors import SlugError
from slug.evaluation.canvas_classifiers import ClipClassifiers, correct, load_classifiers
from slug.evaluation.canvas_prompts import Request

WRONG = {"arch": ["no_such_network", 3], "labels": [{"style": STYLES}, {"style": STYLES, "object": "bell"}, []]}
WRONG |= {"mean": [[0.5], "grey", 0.5], "std": [None], "size": ["16", 0]}


@pytest.fixture
def copy(tiny_canvas, tmp_path):
    """A folder of classifiers that a test may change."""
    shutil.copytree(tiny_canvas / "classifiers", tmp_path / "c")
    return tmp_path / "c"


def change(folder, **changes):
    """Change classifiers.json; None leaves a key out."""
    settings = json.loads((folder / "classifiers.json").read_text()) | changes
    (folder / "classifiers.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def test_an_answer_is_correct_where_the_highest_logit_is_of_what_was_asked_for():
    asked = [Request("test", "Noto", "palm_tree", 0), Request("test", "Blob Old", "bell", 0)]
    logits = {"style": torch.tensor([[2.0, 1.0], [2.0, 1.0]]), "object": torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])}
    found = correct(asked, logits, {"style": STYLES, "object": OBJECTS})
    assert found["style"].tolist() == [True, False] and found["object"].tolist() == [True, False]


def test_an_unknown_name_is_no_wrong_answer():
    with pytest.raises(SlugError, match="does not know 'dragon'"):
        correct([Request("test", "Noto", "dragon", 0)], {"object": torch.zeros(1, 3)}, {"object": OBJECTS})


def test_pictures_of_another_size_are_resized(tiny_canvas):
    classifiers = load_classifiers(tiny_canvas / "classifiers")
    plain = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    large = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    assert torch.allclose(classifiers.logits(plain)["style"], classifiers.logits(large)["style"], atol=1e-4)


def test_the_hash_depends_on_the_weights(copy):
    before = load_classifiers(copy).hash()
    weights = load_file(copy / "style.safetensors")
    assert load_classifiers(copy).hash() == before
    save_file({n: t * 1.5 if t.is_floating_point() else t for n, t in weights.items()}, copy / "style.safetensors")
    assert load_classifiers(copy).hash() != before


def test_without_classifiers_json_the_folder_holds_the_published_ones(copy, monkeypatch):
    path = (copy / "classifiers.json").rename(copy.parent / "published.json")
    monkeypatch.setattr("slug.data.canvas.PUBLISHED", path)
    assert load_classifiers(copy).labels == {"style": STYLES, "object": OBJECTS}


def test_the_published_description_has_the_labels_of_unlearncanvas(tmp_path):
    assert classifier_settings(tmp_path)["labels"]["style"][38] == "Seed_Images"


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values if v is not None])
def test_a_setting_that_will_not_do_is_named(copy, key, value):
    change(copy, **{key: value})
    with pytest.raises(SlugError, match=f"classifiers.json: '{key}' is missing or not"):
        load_classifiers(copy)


@pytest.mark.parametrize("key", WRONG)
def test_a_missing_setting_is_named(copy, key):
    change(copy, **{key: None})
    with pytest.raises(SlugError, match=f"classifiers.json: '{key}' is missing or not"):
        load_classifiers(copy)


@pytest.mark.parametrize("changes", [{"options": {"nonsense": 1}}, {"options": ["channels"]}, {"labels": "fewer"}], ids=str)
def test_weights_that_do_not_fit_are_refused(copy, changes):
    change(copy, **({"labels": {"style": STYLES, "object": OBJECTS[:2]}} if "labels" in changes else changes))
    with pytest.raises(SlugError, match="does not fit resnet10t"):
        load_classifiers(copy)


@pytest.mark.parametrize("published", [False, True])
def test_confused_files_are_said(copy, published):
    style, thing = (copy / f"{k}.safetensors" for k in ("style", "object"))
    if published:
        for path, name in ((style, "style50_cls.pth"), (thing, "style50.pth")):
            torch.save({"model_state_dict": load_file(path)}, copy / name)
            path.unlink()
    else:
        style.rename(copy / "x")
        thing.rename(style)
        (copy / "x").rename(thing)
    with pytest.raises(SlugError, match="3 outputs, as the object classifier has, not 2: the two files are confused"):
        load_classifiers(copy)


def test_the_published_names_are_read(copy, tiny_canvas):
    for kind, name in (("style", "style50.pth"), ("object", "style50_cls.pth")):
        torch.save(load_file(copy / f"{kind}.safetensors"), copy / name)
        (copy / f"{kind}.safetensors").unlink()
    pictures = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    found, expected = (load_classifiers(f).logits(pictures) for f in (copy, tiny_canvas / "classifiers"))
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_missing_folder_is_said():
    with pytest.raises(SlugError, match="classifiers not found"):
        load_classifiers("/nowhere")


def test_missing_weights_are_said(copy):
    (copy / "object.safetensors").unlink()
    with pytest.raises(SlugError, match="has no object"):
        load_classifiers(copy)


def test_a_clip_judges_only_kinds_with_labels(tiny_canvas):
    judge = ClipClassifiers(tiny.load_pipeline(tiny_canvas).clip, {"style": [], "object": ["bell", "key"]})
    found = judge.logits(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert set(found) == {"object"} and found["object"].shape == (2, 2)


@pytest.mark.parametrize(
    "options", [{"pretrained": True}, {"pretrained_cfg": {"hf_hub_id": "x/y"}}, {"checkpoint_path": "x.pth"}]
)
def test_classifiers_that_ask_for_other_weights_are_refused(copy, options):
    change(copy, options=options)
    with pytest.raises(SlugError, match="asks timm for other weights"):
        load_classifiers(copy)
