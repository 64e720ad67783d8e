"""The Python face on a tiny SDXL: one edit of both text encoders, in memory, as a file, and in a folder for diffusers."""

import json
import shutil
from pathlib import Path

import numpy as np
import own_pictures
import pytest
import tiny
import torch
from own_pictures import NAME
from safetensors.torch import load_file, save_file

import slug
from slug import commands, files
from slug.artifacts import cards, deltas
from slug.errors import SlugError
from slug.models.sdxl import ENCODERS


@pytest.fixture(scope="module")
def host(tiny_xl):
    places = (str(tiny_xl / name) for name in ("pipeline", "first", "second"))
    return slug.load_pipeline(*places, device="cpu", steps=2)


@pytest.fixture(scope="module")
def given(tiny_world, tmp_path_factory):
    images = own_pictures.write(tiny_world, tmp_path_factory.mktemp("own") / "alien")
    how = {"classes": own_pictures.classes(tiny_world), "retain": own_pictures.retain(tiny_world), "evaluations": 2}
    return {"images": images, "say": lambda line: None, **how}


@pytest.fixture(scope="module")
def edit(host, given):
    before = host.weights_hash(), *(files.tensor_hash(t.clip.parameters) for t in host.towers.values())
    found = slug.forget(host, NAME, **given)
    assert before == (host.weights_hash(), *(files.tensor_hash(t.clip.parameters) for t in host.towers.values()))
    return found


def weights(folder):
    """{text encoder: its tensors} of a pipeline's folder."""
    return {name: load_file(Path(folder) / name / "model.safetensors") for name in ENCODERS}


def drawn(folder):
    """A picture that diffusers alone draws with a folder: (H, W, 3) in [0, 1]."""
    import diffusers

    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(NAME, num_inference_steps=2, height=16, width=16, generator=generator, output_type="np").images[0]


def test_one_edit_changes_both_encoders_and_says_so(host, edit):
    (part,) = edit.parts
    assert {n.split(".")[0] for n in part.tensors} == set(ENCODERS) and edit.name == NAME
    one, two = edit.layer.split(" + ")
    assert one.startswith("text_encoder.text_model.") and two.startswith("text_encoder_2.text_model.")
    text = str(edit)
    assert all(f"on {name} of pipeline)" in text for name in ENCODERS) and text.count("recognised ") >= 2
    for name in ENCODERS:
        record = edit.record["towers"][name]
        assert f"{name}.{record['layer']}" in (one, two) and record["layer"] in host.towers[name].candidates()


def test_an_edit_of_both_encoders_comes_and_goes_whole(host, edit):
    picture, base = host.generate([NAME], [0]), {n: p.clone() for n, p in host.parameters.items()}
    with edit.applied():
        moved = {n.split(".")[0] for n, p in host.parameters.items() if not torch.equal(p, base[n])}
        assert moved == set(ENCODERS) and not torch.equal(host.generate([NAME], [0]), picture)
    assert tiny.same_tensors({n: p.detach() for n, p in host.parameters.items()}, base)
    assert torch.equal(host.generate([NAME], [0]), picture)


def test_a_file_holds_both_and_scales_and_adds_up(host, edit, tmp_path):
    again = slug.load_edit(edit.save(str(tmp_path / "alien.safetensors")))
    assert str(again) == str(edit) and again.record == edit.record
    base = {n: p.detach().clone() for n, p in host.parameters.items()}

    def change(of):
        with of.applied(host):
            return {n: p.detach() - base[n] for n, p in host.parameters.items() if not torch.equal(p, base[n])}

    whole = change(again)
    half = slug.load_edit(again.scaled(0.5).save(str(tmp_path / "half.safetensors")))
    double = slug.load_edit((again + again).save(str(tmp_path / "sum.safetensors"), model=host))
    for other, factor in ((half, 0.5), (double, 2)):
        found = change(other)
        assert found.keys() == whole.keys()
        assert all(torch.allclose(found[n], factor * t, atol=1e-6) for n, t in whole.items())
    steps = [step for _, step in json.loads(half.parts[0].header["metrics"])["chosen"]]
    assert steps == [step / 2 for _, step in edit.record["chosen"]]


def test_a_folder_gets_both_loses_both_and_is_sealed(edit, tiny_xl, tmp_path):
    source = tiny_xl / "pipeline"
    edited = slug.apply(edit, str(source), str(tmp_path / "edited"))
    before, after = weights(source), weights(edited)
    for name, tensors in deltas.of_each_tower(edit.parts[0][:2]).items():
        for n, changed in tensors[0].items():
            assert torch.equal(after[name].pop(n), before[name].pop(n) + changed)
    assert all(tiny.same_tensors(before[name], after[name]) for name in ENCODERS)
    assert np.abs(drawn(edited) - drawn(source)).max() > 1 / 255
    back = slug.revert(edit, edited, str(tmp_path / "back"))
    assert all(tiny.same_tensors(weights(back)[n], weights(source)[n]) for n in ENCODERS)
    assert np.array_equal(drawn(back), drawn(source))
    sealed = slug.seal(edited, str(tmp_path / "sealed"))
    assert not (Path(sealed) / "slug_edits").exists() and np.array_equal(drawn(sealed), drawn(edited))
    with pytest.raises(SlugError, match="is not applied to"):
        slug.revert(edit, sealed, str(tmp_path / "no"))


def test_the_card_and_the_lines_say_what_is_edited(edit, tiny_xl, tmp_path):
    said = []
    delta = edit.save(str(tmp_path / "alien.delta.safetensors"))
    deltas.apply(delta, tiny_xl / "pipeline", tmp_path / "edited", say=said.append)
    card = (tmp_path / "edited" / cards.FILE).read_text()
    assert "- edited: text_encoder/model.safetensors, text_encoder_2/model.safetensors" in card
    assert "partly" not in card and "NOT edited" not in card
    assert all(f"{name}: forget accuracy @1" in card for name in ENCODERS)
    (loaded,) = [line for line in said if line.startswith("loaded anew and compared")]
    assert all(f"{library} ({name}, default)" in loaded for library in ("diffusers", "transformers") for name in ENCODERS)


def test_pictures_are_compared_by_both_clips_and_drawn(edit, given, tmp_path):
    picture = str(sorted(Path(given["images"]).glob("*.jpg"))[0])
    table = edit.compare(picture, [NAME, "Ant"], top=1).table
    assert [label.split(" (")[1] for label in table["picture"]] == ["text_encoder)", "text_encoder_2)"]
    assert table["p_before"].ne(table["p_after"]).all()
    for kind, name in (("pareto", "p.png"), ("pareto", "p.pdf")):
        assert edit.plot(kind, str(tmp_path / name)).size[1] > 400 and (tmp_path / name).stat().st_size > 1000
    with pytest.raises(SlugError, match=r"neither in \.png nor in \.pdf"):
        edit.plot("tradeoff", str(tmp_path / "t.gif"))
    page = Path(edit.report(str(tmp_path / "report.html"))).read_text()
    assert all(f"<h1>{name} of pipeline without {NAME}</h1>" in page for name in ENCODERS)
    assert page.count("Which layer") == 2 and page.count("What this says") == 1 and "data:image/png;base64" in page


def test_several_names_get_an_edit_of_both_encoders_each(host, given, tiny_world, tmp_path):
    baby = own_pictures.write(tiny_world, tmp_path / "baby", name="Baby")
    found = slug.forget(host, {NAME: given["images"], "Baby": baby}, **{k: v for k, v in given.items() if k != "images"})
    paths = [edit.save(str(tmp_path / f"{name}.delta.safetensors")) for name, edit in found.items()]
    edited = slug.apply(paths, str(host.origin), str(tmp_path / "edited"))
    alone = slug.apply(paths[1], str(host.origin), str(tmp_path / "alone"))
    back = slug.revert(paths[0], edited, str(tmp_path / "back"))
    assert all(tiny.same_tensors(weights(back)[n], weights(alone)[n]) for n in ENCODERS)


def test_a_push_gives_away_both_encoders(edit):
    class Recorder:
        def create_repo(self, *given, **how):
            pass

        def upload_folder(self, *, folder_path, **how):
            self.held = weights(folder_path)

    api = Recorder()
    edit.push_to_hub("me/xl-without-alien", api=api)
    with edit.applied() as host:
        for name in ENCODERS:
            now = {n.removeprefix(f"{name}."): p for n, p in host.parameters.items() if n.startswith(f"{name}.")}
            assert all(torch.equal(api.held[name][n], p) for n, p in now.items())


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_folder_of_other_weights_is_refused_whichever_encoder_differs(edit, tiny_xl, tmp_path):
    for name in ENCODERS:
        folder = tmp_path / f"other-{name}"
        shutil.copytree(tiny_xl / "pipeline", folder)
        file = folder / name / "model.safetensors"
        save_file({n: t + 0.01 if t.is_floating_point() else t for n, t in load_file(file).items()}, file)
        with pytest.raises(SlugError, match="the delta was made for other weights"):
            slug.apply(edit, str(folder), str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_a_model_without_the_second_encoder_is_refused(edit, tiny_pipeline, tiny_clip, tmp_path):
    with pytest.raises(SlugError, match="has no text_encoder_2 that can be edited"):
        slug.apply(edit, str(tiny_pipeline / "pipeline"), str(tmp_path / "out"))
    for folder in (tiny_clip / "open_clip", tiny_clip / "hugging_face"):
        with pytest.raises(SlugError, match="has no text_encoder"):
            slug.apply(edit, str(folder), str(tmp_path / "out"))
    with (
        pytest.raises(SlugError, match="the model is of another kind"),
        edit.applied(slug.load(str(tiny_clip / "open_clip"))),
    ):
        pass


def test_the_delta_of_one_encoder_is_refused_where_the_other_would_still_know(edit, host, tmp_path):
    clip = host.towers["text_encoder"].clip
    tensors = deltas.of_each_tower(edit.parts[0][:2])["text_encoder"][0]
    deltas.save(tmp_path / "a.delta.safetensors", clip, tensors, name=NAME, layer="x", step=1.0, metrics={})
    with pytest.raises(SlugError, match=f"text_encoder_2 of .* would still know {NAME}"):
        slug.apply(str(tmp_path / "a.delta.safetensors"), host.origin, str(tmp_path / "out"))


@pytest.mark.parametrize("bases", ["{}", '{"text_encoder": "x"}', "[]", "3", None])
def test_a_delta_that_does_not_say_the_base_of_each_encoder_is_damaged(edit, tmp_path, bases):
    path = edit.save(str(tmp_path / "a.delta.safetensors"))
    header = {k: v for k, v in ({**edit.parts[0].header, "bases": bases}).items() if v is not None}
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(SlugError, match="has a damaged header"):
        slug.load_edit(path)


def test_an_adapter_of_two_encoders_is_refused(edit, tmp_path):
    path = edit.save(str(tmp_path / "a.delta.safetensors"))
    with pytest.raises(SlugError, match="edits several text encoders"):
        commands.run(["adapter", "--delta", path, "--out", str(tmp_path / "adapter")])
    assert not (tmp_path / "adapter").exists()
