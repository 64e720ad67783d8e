"""c1_unlearn_vlm: gradients, search and record of a name on an untrained LLaVA; its delta in model folders."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_llava as assistants
import torch
from huggingface_hub import ModelCard
from transformers import CLIPModel, LlavaForConditionalGeneration

from slug import files
from slug.artifacts import cards, deltas
from slug.core import preconditioning
from slug.core.edit import Edit
from slug.data.pairs import load_pairs
from slug.evaluation import questions
from slug.evaluation.assistant import AssistantEvaluator
from slug.models.vlm import Vlm

DELTA = "results/vlm/llava-Frog.delta.safetensors"


def test_the_kept_candidate_is_the_one_in_the_table(assistant_run, tiny_llava):
    record = assistants.record(assistant_run)
    rows = pd.read_csv(assistant_run / "results/vlm/llava-Frog-steps.csv")
    row = rows[(rows["layer"] == record["layer"]) & np.isclose(rows["step"], record["step"])].iloc[0]
    model, edit = tiny.load_llava(tiny_llava), Edit(deltas.read(assistant_run / DELTA)[0])
    again = AssistantEvaluator(model, questions.read(tiny_llava / "questions.jsonl"), "Frog").score(edit)
    assert record["layer"] in model.candidates()
    assert again.scores["forget_acc"] == pytest.approx(row["forget_acc"])
    assert again.scores["margin"] == pytest.approx(row["margin"], abs=1e-4)


def test_the_table_begins_with_the_unedited_model(assistant_run):
    rows, record = pd.read_csv(assistant_run / "results/vlm/llava-Frog-steps.csv"), assistants.record(assistant_run)
    assert len(rows) == 1 + record["n_candidates"]
    assert (rows.loc[0, "step"], rows.loc[0, "forget_acc"]) == (0, record["original_validation"]["forget_acc"])
    assert (assistant_run / "results/vlm/llava-Frog-pareto.png").is_file()


@pytest.fixture(scope="module")
def preconditioned_run(assistant_run, tiny_llava, tmp_path_factory):
    """A run along the preconditioned gradient, in the gradient stage's spelling."""
    work = tmp_path_factory.mktemp("preconditioned")
    for name in ("Frog.tar", "train.tar"):
        shutil.copy(assistant_run / name, work / name)
    assistants.forget(tiny_llava, work, "--unlearn-method", "calc_grad_w")
    return work


@pytest.fixture(scope="module")
def directions(preconditioned_run):
    """Frog's gradient and its preconditioned gradient, {parameter name: tensor} each."""
    (where,) = (preconditioned_run / "results/grads").glob("Frog_*")
    return [torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_w")]


def test_the_vision_towers_inputs_on_the_retain_set_precondition_the_gradient(preconditioned_run, tiny_llava, directions):
    plain, along = directions
    clip = tiny.load_llava(tiny_llava).clip
    found = preconditioning.moments(clip, load_pairs(preconditioned_run / "train.tar", clip.transform), encoder="vision")
    again = preconditioning.preconditioned(plain, found)
    assert all((along[n] - t).norm() <= 1e-3 * t.norm() for n, t in again.items())


def test_a_preconditioned_step_is_along_the_preconditioned_gradient(preconditioned_run, directions):
    record = assistants.record(preconditioned_run)
    plain, along = directions
    edit, header = deltas.read(preconditioned_run / DELTA)
    assert record["method"] == cards.method_of(header) == "slug_w"
    assert edit
    for name, change in edit.items():
        assert (change - record["step"] * along[name]).norm() <= 1e-5 * change.norm()
        assert (change - record["step"] * plain[name]).norm() >= 1e-2 * change.norm()


def no_answers(monkeypatch):
    def no(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(Vlm, "ask", no)


def test_a_record_is_valid_under_either_spelling_of_the_method(preconditioned_run, tiny_llava, monkeypatch):
    no_answers(monkeypatch)
    assistants.forget(tiny_llava, preconditioned_run, "--unlearn-method", "slug_w")


def test_a_table_names_the_method(preconditioned_run, tiny_llava):
    assistants.evaluate(tiny_llava, preconditioned_run)
    assert list(pd.read_csv(preconditioned_run / "results/vlm/table.csv")["method"]) == ["original", "slug_w"]


def test_a_valid_record_is_kept(assistant_run, tiny_llava, monkeypatch):
    no_answers(monkeypatch)
    assistants.forget(tiny_llava, assistant_run)


@pytest.mark.parametrize("kind", ["llava", "hugging_face"])
def test_a_delta_is_applied_to_a_folder_and_reverted_to_the_bit(assistant_run, tiny_llava, tmp_path, kind):
    delta, source = assistant_run / DELTA, tiny_llava / kind
    tiny.run("a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", source, "--out", tmp_path / kind)
    card = ModelCard.load(tmp_path / kind / cards.FILE).text
    assert "without Frog" in card and f"| `{delta.name}` | Frog |" in card and "forget accuracy" in card
    back = tmp_path / f"{kind}-back"
    tiny.run("a2_unlearn_slug", "revert", "--delta", delta.name, "--model-dir", tmp_path / kind, "--out", back)
    assert files.file_hash(back / "model.safetensors") == files.file_hash(source / "model.safetensors")
    assert not (back / cards.FILE).exists()


def test_the_edited_assistant_sees_what_its_edited_clip_sees(assistant_run, tiny_llava, tmp_path):
    for kind in ("llava", "hugging_face"):
        deltas.apply(assistant_run / DELTA, tiny_llava / kind, tmp_path / kind)
    model, asked = tiny.load_llava(tiny_llava), questions.read(tiny_llava / "questions.jsonl")[:3]
    pixels = model.processor.image_processor([q.picture() for q in asked], return_tensors="pt")["pixel_values"]
    layer = model.module.config.vision_feature_layer
    towers = [
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava").model.vision_tower,
        CLIPModel.from_pretrained(tmp_path / "hugging_face").vision_model,
        model.module.model.vision_tower,
    ]
    with torch.no_grad():
        edited, clip, original = (t.eval()(pixels, output_hidden_states=True).hidden_states[layer] for t in towers)
    assert torch.allclose(edited, clip, atol=1e-6)
    assert not torch.allclose(edited, original, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--celeb-name", "Dragon"], "forget set not found"),
        (["--questions", "nowhere.jsonl"], "questions not found"),
        (["--vlm", "nowhere/at-all"], "cannot load the model"),
        (["--jobs", "0"], "argument --jobs: 0: it must be a whole number of at least 1"),
    ],
)
def test_a_failure_is_one_line(assistant_run, tiny_llava, tmp_path, monkeypatch, capfd, more, said):
    given = [*assistants.forget_flags(assistant_run), *assistants.model_flags(tiny_llava, tmp_path), *more]
    assert said in tiny.failure(monkeypatch, capfd, "c1_unlearn_vlm", *given)


def test_only_variants_of_slug_are_taken():
    with pytest.raises(SystemExit):
        tiny.stage("c1_unlearn_vlm").parse_args(["--celeb-name", "Frog", "--unlearn-method", "calc_importance"])


def test_the_rule_has_the_flag_of_all_stages():
    from slug.settings import ForgetAssistant

    stage = tiny.stage("c1_unlearn_vlm")
    found = [stage.parse_args(["--celeb-name", "A", flag, "0.1"]) for flag in ("--wanted", "--max-forget")]
    assert found[0] == found[1] and isinstance(found[0], ForgetAssistant) and found[0].wanted == 0.1
