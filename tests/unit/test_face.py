"""The Python face: every example of a docstring runs, paths are strings, refusals are one line, importing it is fast."""

import argparse
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import own_pictures
import pytest
import tiny
import torch
from own_pictures import NAME
from PIL import Image

import slug
from slug import edits, face, files
from slug.artifacts import deltas
from slug.errors import SlugError

MINI = files.ROOT / "data" / "models" / "mini-clip"


class Recorder:
    """As much of huggingface_hub.HfApi as a push needs; keeps what it was asked for."""

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **how):
        self.calls.append(("create_repo", repo_id, how))

    def upload_folder(self, *, folder_path, **how):
        held = {p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*") if p.is_file()}
        self.calls.append(("upload_folder", held, how))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Pictures that mini-CLIP knows: lions/, 24 renderings, and others/, 60 other things with captions."""
    from demo import build_world, emoji

    concepts = [c for c in emoji.concepts() if c.name == "lion" or c.kind == "object"][:61]
    concepts = [c for c in emoji.concepts() if c.name == "lion"] + [c for c in concepts if c.name != "lion"][:60]
    world = build_world.load(concepts)
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("drawn")
    lions = [i for rows in world.drawings[0].values() for i in rows]
    rows = [lions[i % len(lions)] for i in range(24)] + [next(iter(world.drawings[c].values()))[0] for c in range(1, 61)]
    made = build_world._jpegs(world, rows, rng)
    for i, content in enumerate(made):
        name = "lion" if i < 24 else concepts[i - 23].name
        path = out / ("lions" if i < 24 else "others") / f"{i}.jpg"
        tiny.write_file(path, content)
        if i >= 24:
            path.with_suffix(".txt").write_text(f"a photo of a {name}.")
    return out


@pytest.fixture
def namespace(drawn, tmp_path, monkeypatch):
    """What the examples see."""
    monkeypatch.chdir(files.ROOT)
    lions = sorted(str(p) for p in (drawn / "lions").iterdir())
    return {
        "slug": slug,
        "model": slug.load(str(MINI), device="cpu"),
        "lions": lions,
        "retain": str(drawn / "others"),
        "picture": Image.open(lions[0]),
        "scratch": str(tmp_path),
        "recorder": Recorder(),
    }


def examples():
    """The docstrings with examples."""
    found = doctest.DocTestFinder(exclude_empty=True)
    for module in (face, edits):
        for test in found.find(module, module.__name__, module=module):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(examples()))
def test_the_examples_of_the_docstrings_run(example, namespace):
    if "seal" in example.docstring and not hasattr(deltas, "seal"):
        pytest.skip("sealing is not there yet")
    example.globs = dict(namespace)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append, clear_globs=False)
    assert said == [], "".join(said)


def test_every_function_of_the_face_has_an_example_of_its_use():
    lacking = [name for name in slug.__all__ for thing in [getattr(slug, name)] if ">>>" not in inspect.getdoc(thing)]
    methods = [n for n, m in inspect.getmembers(edits.Edit, inspect.isfunction) if not n.startswith("_")]
    assert lacking == [] and [n for n in methods if ">>>" not in inspect.getdoc(getattr(edits.Edit, n))] == []


def test_importing_the_package_is_fast_and_loads_no_library():
    code = "import slug, sys; dir(slug); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "transformers", "pandas", "matplotlib", "slug.face"} & set(loaded)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = slug.nothing


def signatures():
    """(label, signature) of every function that users of the face call: its own, an Edit's, and those of loaded models."""
    from slug.models.clip import Clip
    from slug.reports.forgetting_plots import Comparison

    for name in slug.__all__:
        if name != "Edit":
            yield name, inspect.signature(getattr(slug, name), eval_str=True)
    for kind in (edits.Edit, Comparison):
        for name, function in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") or name in ("__add__", "__radd__"):
                yield f"{kind.__name__}.{name}", inspect.signature(function, eval_str=True)
    yield "Clip.classify", inspect.signature(Clip.classify, eval_str=True)


def kinds(annotation):
    """The types that an annotation allows, those of its parts included."""
    inner = typing.get_args(annotation)
    return {annotation} if not inner else set().union(*map(kinds, inner))


@pytest.mark.parametrize(
    ("label", "signature"), list(signatures()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_function_of_the_face_takes_a_path_object_only_a_namespace_or_a_celeba_folder_by_necessity(label, signature):
    assert signature.return_annotation is not Path, "a path is returned as text"
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        allowed = kinds(parameter.annotation)
        assert parameter.annotation is not inspect.Parameter.empty, "every parameter says what it takes"
        if any(isinstance(k, type) and issubclass(k, os.PathLike) for k in allowed):
            assert str in allowed, f"{label}: {parameter} takes a path object only"
        assert argparse.Namespace not in allowed and "args" not in parameter.name and "settings" not in parameter.name
        evaluation_set = any(word in parameter.name for word in ("celeb", "imagenet", "val_data", "evaluate"))
        assert not evaluation_set or parameter.default is None, f"{label}: {parameter} cannot be left out"


# ---------------------------------------------------------------------------------------------------- a whole forgetting


@pytest.fixture(scope="module")
def model(taught_clip):
    return slug.load(str(taught_clip / "open_clip"), device="cpu")


@pytest.fixture(scope="module")
def images(tiny_world, tmp_path_factory):
    return own_pictures.write(tiny_world, tmp_path_factory.mktemp("own") / "alien")


@pytest.fixture(scope="module")
def forgotten(model, tiny_world, images):
    how = {"classes": own_pictures.classes(tiny_world), "evaluations": 4}
    return slug.forget(model, NAME, images=images, retain=own_pictures.retain(tiny_world), **how)


def test_an_edit_says_what_it_did_and_what_it_is_worth(forgotten):
    text = str(forgotten)
    assert f"{NAME}: {forgotten.layer.removesuffix('.weight')}, step" in text
    assert "recognised 100.0% -> 0.0% of 7 test pictures (at most 34.8%), 7 source images (at most 34.8%)" in text
    assert (
        "same answer as the unedited model" in text and "own caption is the nearest one" in text and " s, of which" in text
    )


def test_pictures_may_be_a_folder_a_list_pil_pictures_a_tar_or_a_table(model, tiny_world, images, forgotten, tmp_path):
    paths = sorted(str(p) for p in Path(images).glob("*.jpg"))
    tiny.write_tar(
        tmp_path / "a.tar",
        {
            n: c
            for i, p in enumerate(paths)
            for n, c in ((f"{i:03d}.jpg", Path(p).read_bytes()), (f"{i:03d}.txt", NAME.encode()))
        },
    )
    (tmp_path / "a.csv").write_text("image\n" + "".join(f"{p}\n" for p in paths))
    how = {"classes": own_pictures.classes(tiny_world), "evaluations": 4, "retain": [own_pictures.retain(tiny_world)]}
    for given in (paths, [Image.open(p) for p in paths], str(tmp_path / "a.tar"), str(tmp_path / "a.csv")):
        found = slug.forget(model, NAME, images=given, **how)
        assert found.layer == forgotten.layer and found.step == pytest.approx(forgotten.step, rel=1e-4)


def test_an_edit_comes_back_from_its_file_with_its_record(forgotten, model, tmp_path):
    path = forgotten.save(str(tmp_path / "alien.safetensors"))
    again = slug.load_edit(path)
    assert str(again) == str(forgotten) and again.record == forgotten.record
    one, two = (e.parts[0].on(model).values(model) for e in (forgotten, again))
    assert tiny.same_tensors(one, two)
    with again.applied(model):
        assert all(torch.equal(model.parameters[n], v) for n, v in two.items())


def test_applying_leaves_the_model_as_it_was_after_an_error(forgotten, model):
    before = files.tensor_hash(model.parameters)
    with pytest.raises(ZeroDivisionError), forgotten.applied(model):
        assert files.tensor_hash(model.parameters) != before
        raise ZeroDivisionError
    assert files.tensor_hash(model.parameters) == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_files_scale_and_add_up_as_edits_do(forgotten, taught_clip, family, tmp_path):
    host = slug.load(str(taught_clip / family), device="cpu")
    edit = slug.load_edit(forgotten.save(str(tmp_path / "e.safetensors")))
    base = {n: p.detach().clone() for n, p in host.parameters.items()}

    def change(of):
        with of.applied(host):
            return {n: p.detach() - base[n] for n, p in host.parameters.items() if not torch.equal(p, base[n])}

    whole = change(edit)
    half = change(slug.load_edit(edit.scaled(0.5).save(str(tmp_path / "half.safetensors"))))
    double = change(slug.load_edit((edit + edit).save(str(tmp_path / "sum.safetensors"), model=host)))
    for n, value in whole.items():
        assert torch.allclose(half[n], 0.5 * value, atol=1e-6) and torch.allclose(double[n], 2 * value, atol=1e-6)
    assert sum([edit, edit]).name == f"{NAME} and {NAME}"


def test_a_saved_edit_is_applied_to_a_folder_and_reverted_to_the_bit(forgotten, taught_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths start here
    source = str(taught_clip / "open_clip")
    edited = slug.apply(forgotten, source, "edited")
    assert edited == str(tmp_path / "edited")
    clip = slug.load("edited", device="cpu")
    with forgotten.applied():
        assert tiny.same_tensors(
            {n: p.detach().half().float() for n, p in forgotten.model.parameters.items()},
            {n: p.detach() for n, p in clip.parameters.items()},
        )
    slug.revert(forgotten, "edited", "back")
    weights = "open_clip_model.safetensors"
    assert tiny.same_tensors(*(tiny.load_file(Path(f) / weights) for f in (source, "back")))


def test_plots_and_the_report_are_pictures_and_one_page(forgotten, tmp_path):
    for kind in ("tradeoff", "steps", "pareto", "pictures"):
        assert forgotten.plot(kind, str(tmp_path / f"{kind}.png")).size[0] > 400 and (tmp_path / f"{kind}.png").is_file()
    forgotten.plot("tradeoff", str(tmp_path / "t.pdf"))
    page = Path(forgotten.report(str(tmp_path / "deep" / "report.html"))).read_text()
    assert page.count("data:image/") > 7 and "http://" not in page and "https://" not in page
    assert "recognised as Alien, of 7 pictures" in page
    with pytest.raises(SlugError, match="no plot 'pie'; choose from tradeoff"):
        forgotten.plot("pie")
    with pytest.raises(SlugError, match=r"neither in \.png nor in \.pdf"):
        forgotten.plot("tradeoff", str(tmp_path / "t.gif"))
    loaded = slug.load_edit(forgotten.save(str(tmp_path / "x.safetensors")))
    again = Path(loaded.report(str(tmp_path / "again.html"))).read_text()
    assert "data:image/" not in again and "Not shown: pictures are shown only in the process" in again
    with pytest.raises(SlugError, match=r"edit\.compare shows others"):
        loaded.plot("pictures")


def test_names_in_a_report_are_text_whatever_they_hold(forgotten):
    record = forgotten.record | {"name": "<script>x</script>", "notes": ["<b>"]}
    from slug.reports.pages import own

    page = own.html(record)
    assert "<script>x" not in page and "<b>" not in page and "&lt;script&gt;x" in page


def test_pictures_are_compared_before_and_after(forgotten, model, images, tmp_path):
    pictures = sorted(str(p) for p in Path(images).glob("*.jpg"))[:2]
    found = forgotten.compare(pictures, names=["Alien", "Ant", "Baby"], top=2)
    table = found.table
    assert table["before"][0] == "Alien" and table["after"][0] != "Alien" and len(table) == 4
    assert found.picture.size[0] > 400 and Path(found.save(str(tmp_path / "c.csv"))).read_text().startswith("picture,rank")
    with pytest.raises(SlugError, match="knows no model"):
        slug.load_edit(forgotten.save(str(tmp_path / "y.safetensors"))).compare(pictures, ["a"])


def test_classify_asks_for_lists_and_for_pictures_that_can_be_read(model, tmp_path):
    for images, names, said in (
        ("me.jpg", ["a"], "takes a list"),
        ([], ["a"], "at least one picture"),
        ([Image.new("RGB", (8, 8))], [], "one name"),
        ([str(tmp_path / "no.jpg")], ["a"], "cannot read the picture"),
    ):
        with pytest.raises(SlugError, match=said):
            model.classify(images, names)


def test_several_names_get_an_edit_each(model, tiny_world, images, tmp_path):
    baby = own_pictures.write(tiny_world, tmp_path / "baby", name="Baby")
    how = {"classes": own_pictures.classes(tiny_world), "evaluations": 3, "retain": own_pictures.retain(tiny_world)}
    found = slug.forget(model, {NAME: images, "Baby": baby}, **how)
    assert list(found) == [NAME, "Baby"] and all(e.record["method"] == "slug_ws" for e in found.values())
    both = sum(found.values())
    with both.applied(model):
        pass
    assert (
        found[NAME].record["together"]["Baby"]["n"] > 0
        and "All names of the call together" in Path(found[NAME].report(str(tmp_path / "r.html"))).read_text()
    )


def test_a_push_gives_away_a_sealed_folder_with_its_card(forgotten, monkeypatch):
    if not hasattr(deltas, "seal"):
        pytest.skip("sealing is not there yet")
    api = Recorder()
    address = forgotten.push_to_hub("me/without-alien", api=api)
    (_, repo, how), (_, held, more) = api.calls
    assert address == "https://huggingface.co/me/without-alien" and repo == more["repo_id"] == "me/without-alien"
    assert how["private"] and "README.md" in held and not any("slug_edits" in file for file in held)
    assert {"open_clip_config.json", "open_clip_model.safetensors"} <= held


# ------------------------------------------------------------------------------------------------- pipelines, assistants


@pytest.mark.parametrize("kind", ["pipeline", "vlm"])
def test_a_host_model_forgets_by_the_clip_of_its_tower(kind, request, tiny_world, images, tmp_path):
    if kind == "pipeline":
        folder = request.getfixturevalue("tiny_pipeline")
        host = slug.load_pipeline(
            str(folder / "pipeline"), str(folder / "hugging_face"), device="cpu", steps=2, guidance=1.0
        )
    else:
        folder = request.getfixturevalue("tiny_llava")
        host = slug.load_vlm(str(folder / "llava"), str(folder / "hugging_face"), device="cpu")
    before = host.weights_hash()
    how = {"classes": own_pictures.classes(tiny_world), "evaluations": 2, "retain": own_pictures.retain(tiny_world)}
    edit = slug.forget(host, NAME, images=images, variant="w", **how)
    prefix = {"pipeline": "text_model.", "vlm": "vision_model."}[kind]
    assert all(n.startswith(prefix) for n in edit.parts[0].tensors) and "look at what the whole model" in str(edit)
    assert host.weights_hash() == before
    with slug.load_edit(edit.save(str(tmp_path / "e.safetensors"))).applied(host):
        assert host.weights_hash() != before
    assert len(edit.compare(sorted(Path(images).glob("*.jpg"))[0], ["Alien", "Ant"]).table) == 2
    with pytest.raises(SlugError, match="choose a variant of SLUG"):
        slug.forget(host, NAME, images=images, method="ft", **how)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": None}, "no pictures of Alien are given"),
        ({"images": []}, "no pictures of Alien are given"),
        ({"retain": None}, "no retain set is given"),
        ({"retain": []}, "no retain set is given"),
        ({"name": ""}, "give the name"),
        ({"name": {}}, "give the name"),
        ({"name": {"a_b": "x", "A b": "y"}}, "two of the names are the same"),
        ({"images": "nowhere"}, "pictures of Alien not found"),
        ({"method": "nothing"}, "no method is called 'nothing'"),
        ({"variant": "x"}, "no gradient is called 'slug_x'"),
        ({"method": "ft", "variant": "w"}, "variant='w' is a variant of SLUG"),
        ({"classes": "nowhere.txt"}, "list of class names not found"),
        ({"evaluate": {"mine": "nowhere"}}, "labelled evaluation set not found"),
        ({"model": 3}, "int is not a known model"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear is no CLIP whose family is known"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_refusal_is_one_line_before_any_work(model, images, tiny_world, change, said):
    given = {"model": model, "name": NAME, "images": images, "retain": own_pictures.retain(tiny_world)} | change
    with pytest.raises(SlugError, match=said) as error:
        slug.forget(given.pop("model"), given.pop("name"), **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("argument", "value", "said"), own_pictures.REFUSED)
def test_what_the_command_refuses_is_refused_alike(taught_clip, tiny_world, tmp_path, monkeypatch, argument, value, said):
    monkeypatch.chdir(tmp_path)
    own_pictures.write(tiny_world, tmp_path / "photos")
    (tmp_path / "names.txt").write_text("\n".join(own_pictures.classes(tiny_world)))
    own_pictures.write_faults(tiny_world, tmp_path, monkeypatch)
    given = {"model": str(taught_clip / "open_clip"), "images": "photos", "retain": own_pictures.retain(tiny_world)}
    given |= {argument: value}
    with pytest.raises(SlugError, match=re.escape(said)) as error:
        slug.forget(given.pop("model"), NAME, **given, classes="names.txt", evaluations=2, say=print)
    assert "\n" not in str(error.value)


def test_a_name_that_the_model_does_not_recognise_is_said_with_those_it_gives(model, images, tiny_world):
    said = []
    how = {"classes": own_pictures.classes(tiny_world), "evaluations": 2, "say": said.append}
    edit = slug.forget(model, "Zorblat", images=images, retain=own_pictures.retain(tiny_world), **how)
    assert said[0].startswith("note: the unedited model recognises 0 of 14 held-out pictures as Zorblat")
    assert (
        "it says alien (" in said[0] and said[0].removeprefix("note: ") == edit.record["notes"][0] and said[0] in str(edit)
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [("model_index.json", "slug.load_pipeline"), ("config.json", "slug.load_vlm")],
    ids=["pipeline", "llava"],
)
def test_a_host_model_is_not_loaded_as_a_clip(kind, said, tmp_path):
    (tmp_path / kind).write_text('{"model_type": "llava"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SlugError, match=said):
        slug.load(str(tmp_path))


def test_modules_are_importable_one_by_one():
    for name in ("slug.face", "slug.edits", "slug.commands", "slug.models.in_memory"):
        importlib.import_module(name)
    assert os.sep in face.here("x") and face.here(3) == 3


def test_a_loaded_model_serves_as_the_model_that_an_edit_is_applied_to(tmp_path):
    delta, model = "results/demo/mini-clip-Lion.delta.safetensors", slug.load(str(MINI))
    of_model = slug.load(slug.apply(str(files.ROOT / delta), model, str(tmp_path / "of-model")))
    of_folder = slug.load(slug.apply(str(files.ROOT / delta), str(MINI), str(tmp_path / "of-folder")))
    assert all(torch.equal(p, of_folder.parameters[n]) for n, p in of_model.parameters.items())
    assert not torch.equal(of_model.parameters["visual.proj"], model.parameters["visual.proj"])
