"""b2_unlearn_sd.py: what it writes, and what it says where it cannot."""

import shutil

import diffusers
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_canvas import Run

from slug import files
from slug.artifacts import cards, deltas
from slug.core import layers
from slug.core.edit import Edit
from slug.evaluation import canvas_classifiers, unlearncanvas
from slug.evaluation.canvas_prompts import Concept
from slug.experiments.pipelines import Forgetting
from slug.models import diffusion
from slug.models.canonical import ALONE

STEM = "slug-style-Noto"
NOTO = Concept("style", "Noto")
PROMPTS = ["a bell", "a key"]


def chosen_row(run):
    """The row of the chosen candidate in the CSV."""
    ((layer, step),) = run.record(STEM)["chosen"]
    rows = pd.read_csv(run.steps(STEM))
    return rows[(rows["layer"] == layer) & np.isclose(rows["step"], step)].iloc[0]


# ----------------------------------------------------------------------------------------------------- what it writes


def test_the_edit_applied_anew_gives_the_figures_of_its_row(canvas_run, tiny_canvas):
    asked, pipe, row = canvas_run.asked("validation"), canvas_run.load(), chosen_row(canvas_run)
    classifiers = canvas_classifiers.load_classifiers(tiny_canvas / "classifiers")
    with Edit(deltas.of_model(pipe, canvas_run.delta(STEM))).applied(pipe):
        images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
    right = canvas_classifiers.correct(asked, classifiers.logits(images), classifiers.labels)
    found = unlearncanvas.scores(NOTO, asked, right)
    assert pytest.approx(row["UA"]) == found.UA
    assert np.isnan(row["IRA"]) or pytest.approx((row["IRA"], row["CRA"])) == (found.IRA, found.CRA)


def test_a_row_has_the_seeds_of_its_pictures(canvas_run):
    seeds = {r.seed for r in canvas_run.asked("validation") if r.style == "Noto"}
    assert {int(s) for s in chosen_row(canvas_run)["seeds"].split()} == seeds


def test_the_search_begins_at_a_tenth_of_the_weights_norm(canvas_run):
    clip, ((layer, step),) = canvas_run.load().clip, canvas_run.record(STEM)["chosen"]
    edit, _ = deltas.read(canvas_run.delta(STEM))
    group = clip.group(layer)
    assert set(edit) == set(group)
    first = layers.first_step([clip.parameters[n] for n in group], [t / step for t in edit.values()])
    assert min(pd.read_csv(canvas_run.steps(STEM))["step"][1:]) <= 10 * first


def test_the_delta_is_small(canvas_run):
    edit, _ = deltas.read(canvas_run.delta(STEM))
    assert canvas_run.delta(STEM).stat().st_size <= 2 * sum(4 * t.numel() for t in edit.values()) + 16_000


def test_the_delta_refuses_another_pipeline(canvas_run, tmp_path, monkeypatch, capfd):
    tiny.write_random_clip(tmp_path, seed=3)
    tiny.write_pipeline(tmp_path / "other", tmp_path / "hugging_face")
    arguments = ["apply", "--delta", canvas_run.delta(STEM), "--model-dir", tmp_path / "other", "--out", tmp_path / "out"]
    assert "made for other weights" in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *arguments)


@pytest.fixture(scope="module")
def edited(canvas_run, tmp_path_factory):
    """edited/, the pipeline's folder with the delta applied, and back/, with the delta reverted."""
    folder, delta = tmp_path_factory.mktemp("edited"), canvas_run.delta(STEM)
    apply = ["--delta", delta, "--model-dir", canvas_run.sd / "pipeline", "--out", folder / "edited"]
    tiny.run("a2_unlearn_slug", "apply", *apply)
    revert = ["--delta", delta.name, "--model-dir", folder / "edited", "--out", folder / "back"]
    tiny.run("a2_unlearn_slug", "revert", *revert)
    return folder


def test_diffusers_loads_the_folder_with_the_delta(canvas_run, edited):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(edited / "edited")
    original = canvas_run.load()
    with Edit(deltas.of_model(original, canvas_run.delta(STEM))).applied(original):
        states, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
        assert torch.allclose(states, original.embed(PROMPTS), atol=1e-6)


def test_the_folder_after_a_revert_is_the_original(canvas_run, edited):
    folders = [canvas_run.sd / "pipeline", edited / "back"]
    assert len({files.file_hash(f / "text_encoder/model.safetensors") for f in folders}) == 1
    names = [{str(p.relative_to(f)) for p in f.rglob("*")} for f in folders]
    assert names[0] == names[1] and not (edited / "back" / deltas.EDITS).exists()


def test_the_cards_say_what_was_forgotten(canvas_run, edited):
    name = canvas_run.delta(STEM).name
    found = ModelCard.load(edited / "edited" / cards.FILE)
    assert "without Noto" in found.text and f"| `{name}` | Noto |" in found.text and "UA " in found.text
    adapter = ModelCard.load(canvas_run.results / f"sd/pipeline-{STEM}-lora" / cards.FILE)
    assert adapter.data.base_model == "pipeline" and f"| `{name}` | Noto |" in adapter.text


# --------------------------------------------------------------------------------------------------- what it depends on


def test_valid_records_are_kept(canvas_run, monkeypatch):
    monkeypatch.setattr(diffusion.Diffusion, "_run", None)  # no picture is made
    canvas_run.run(*canvas_run.b2("--style", "Noto", "--object", "palm_tree"))


def test_a_record_is_of_the_judge_that_chose_it(canvas_run, tiny_canvas, tmp_path):
    """Other classifiers at the same place: chosen anew."""
    run = canvas_run.another(tmp_path)
    shutil.copytree(tiny_canvas / "classifiers", tmp_path / "classifiers")
    arguments = run.b2("--style", "Noto", "--method", "uce", "--classifiers", tmp_path / "classifiers")
    run.run(*arguments)
    first = run.record("uce-style-Noto")
    weights = load_file(tmp_path / "classifiers/style.safetensors")
    changed = {n: t * 1.5 if t.is_floating_point() else t for n, t in weights.items()}
    save_file(changed, tmp_path / "classifiers/style.safetensors")
    run.run(*arguments)
    assert run.record("uce-style-Noto")["judge_hash"] != first["judge_hash"]


@pytest.mark.parametrize(
    "more", [["--select", "clip"], ["--select", "clip", "--rounds", 2], ["--prompts", "OTHER"]], ids=str
)
def test_a_run_does_not_replace_another_ones_records(canvas_run, tmp_path, monkeypatch, capfd, more):
    record = canvas_run.results / f"sd/pipeline-{STEM}.json"
    before = record.read_bytes()
    (tmp_path / "other.csv").write_text(canvas_run.prompts.read_text().replace(",1000", ",2000"))
    more = [tmp_path / "other.csv" if word == "OTHER" else word for word in more]
    line = tiny.failure(monkeypatch, capfd, *canvas_run.b2("--style", "Noto", *more), *canvas_run.common)
    assert f"{record.name} was made with other prompts or another judge" in line and "--result-dir" in line
    assert record.read_bytes() == before


# ------------------------------------------------------------------------------------------------------- known steps


@pytest.mark.parametrize("end", ["", ALONE])
def test_a_known_step_is_taken_without_a_search(canvas_run, tmp_path, end):
    run, layer = canvas_run.another(tmp_path), f"text_model.encoder.layers.0.mlp.fc1.weight{end}"
    run.run(*run.b2("--style", "Noto", "--step", 12.5, "--layer", layer))
    assert run.record(STEM)["chosen"] == [[layer, 12.5]] and run.record(STEM)["n_candidates"] == 1
    grads = torch.load(next((tmp_path / "grads").glob("Noto_*/forget_grads.pt")), weights_only=True)
    edit, _ = deltas.read(run.delta(STEM))
    names = [layer.removesuffix(ALONE)] + ([] if end else ["text_model.encoder.layers.0.mlp.fc2.weight"])
    assert set(edit) == set(names) and all(torch.allclose(edit[n], 12.5 * grads[n], rtol=1e-3, atol=1e-6) for n in names)


def test_a_layer_that_is_not_the_pipelines_is_refused(canvas_run, tmp_path, monkeypatch, capfd):
    run = canvas_run.another(tmp_path)
    line = tiny.failure(monkeypatch, capfd, *run.b2("--style", "Noto", "--step", 1, "--layer", "visual.proj"), *run.common)
    assert "SLUG may not edit a layer 'visual.proj'" in line


# ------------------------------------------------------------------------------------------------------------- rounds


@pytest.fixture(scope="module", params=["slug", "slug_w", "slug_ws"])
def rounds(request, canvas_run, tmp_path_factory):
    """(run, method, what Forgetting.gradients_now was asked for and gave) of two rounds, with the CLIP as the judge."""
    run, taken, anew = canvas_run.another(tmp_path_factory.mktemp("rounds")), [], Forgetting.gradients_now
    run.b1("Noto", "palm_tree", method=request.param)
    flags = ["--select", "clip", "--wanted", 0.1, "--rounds-wanted", 1.0, "--method", request.param, "--rounds", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forgetting, "gradients_now", lambda *a: taken.append(a) or anew(*a))
        run.run(*run.b2("--style", "Noto", *flags))
    return run, request.param, taken


def test_rounds_go_on_from_one_layer(rounds):
    run, method, taken = rounds
    one, two = run.record(f"{method}-style-Noto"), run.record(f"{method}_rounds-style-Noto")
    assert two["method"] == f"{method}_rounds" and two["chosen"][:1] == one["chosen"] and len(two["chosen"]) <= 2
    assert len(taken) == (1 if one["chosen"] and one["winner_validation"]["UA"] < 1 else 0)
    assert two["seconds"] >= one["seconds"]


def test_the_delta_of_rounds_holds_all_their_layers(rounds):
    run, method, _ = rounds
    first, both = (deltas.read(run.delta(f"{m}-style-Noto"))[0] for m in (method, f"{method}_rounds"))
    assert set(first) <= set(both)
    if len(run.record(f"{method}_rounds-style-Noto")["chosen"]) == 1:
        assert tiny.same_tensors(first, both)


def test_gradients_taken_anew_are_those_of_b1_at_the_same_weights(rounds):
    """After the rounds the model has its own weights again."""
    run, _, taken = rounds
    for given in taken:
        again, _ = Forgetting.gradients_now(*given)
        path = next((run.results / "grads").glob("Noto_*")) / given[0].variant.file("forget")
        grads = torch.load(path, weights_only=True)
        assert all((t - grads[n]).norm() <= 1e-4 * t.norm() for n, t in again.items())


# ---------------------------------------------------------------------------------------------------- what is missing


@pytest.fixture
def prepared(tiny_canvas, tmp_path):
    """A run with prompts and forget sets, without gradients."""
    run = Run(tiny_canvas, tmp_path)
    run.prepare()
    return run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: None, "b1_compute_grad.py"),
        (lambda r: r.prompts.unlink(), "prompts not found"),
        (lambda r: r.prompts.write_text("split,style\nvalidation,Noto\n"), "in row 2"),
        (lambda r: (r.tars / "Noto.tar").unlink(), "forget set not found"),
    ],
    ids=["gradients", "prompts", "columns", "forget set"],
)
def test_what_is_missing_is_said_in_one_line(prepared, monkeypatch, capfd, change, said):
    change(prepared)
    assert said in tiny.failure(monkeypatch, capfd, *prepared.b2("--style", "Noto"), *prepared.common)


def test_a_concept_that_the_classifiers_do_not_know_is_said_in_one_line(prepared, monkeypatch, capfd):
    prepared.prompts.write_text(prepared.prompts.read_text().replace("Noto", "Rococo"))
    given = prepared.b2("--style", "Rococo", "--method", "uce")
    assert "does not know 'Rococo'" in tiny.failure(monkeypatch, capfd, *given, *prepared.common)


@pytest.mark.parametrize("part", [(1, 0), (0, 2)])
def test_a_part_that_is_none_is_said_in_one_line(canvas_run, monkeypatch, capfd, part):
    line = tiny.failure(monkeypatch, capfd, *canvas_run.b2("--style", "Noto", "--part", *part), *canvas_run.common)
    assert "argument --part: 0: it must be a whole number of at least 1" in line
