"""Evaluations of a CLIP: what is reused changes no answer, fast against plain."""

import itertools

import pytest
import tiny
import torch
from reuse import Both, random_edit

from slug.core import layers, slug
from slug.evaluation import clip_tasks, reference
from slug.models import towers


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Worker processes that decode change nothing and take longer to start than a few pictures."""
    monkeypatch.setattr(reference, "WORKERS", 0)


TEXTS = ["a", "alien monster.", "a photo of a bento box on a plain background", "2nd place medal"]


def test_looking_ahead_changes_no_step_and_no_figure(clip, tmp_path, monkeypatch):
    both = Both(clip, tmp_path)
    chosen = [n for n, e in clip.candidates().items()][::7]
    rows = [layers.Layer(n, clip.encoder(n), 1.0, 0.0) for n in chosen]
    forget = {n: t for name in chosen for n, t in random_edit(clip, name).items()}
    asked, ask = [], clip_tasks.Evaluation.forget_steps
    monkeypatch.setattr(clip_tasks.Evaluation, "forget_steps", lambda self, *a: asked.append(len(a[-1])) or ask(self, *a))
    found = []
    for depth in (1, 3):
        curves, best = slug.search_all(clip, both.judges[0], rows, forget, evaluations=5, log_all=True, depth=depth)
        found.append([s._replace(seconds=0) for steps in curves.values() for s in [*steps, best]])
        assert bool(asked) == (depth > 1)
    assert max(asked) > 3
    for one, ahead in zip(*found, strict=True):
        assert one[0] == ahead[0] and one[1:] == pytest.approx(ahead[1:], abs=1e-5, nan_ok=True)


def test_fast_and_plain_walk_ten_steps_alike_on_the_tiny_models(clip, tmp_path):
    both = Both(clip, tmp_path)
    for encoder in ("vision", "language"):
        for layer in [n for n, e in clip.candidates().items() if e == encoder][::6]:
            both.walk(layer, 10)


@pytest.mark.parametrize("same", [True, False])
def test_a_low_precision_holds_only_where_it_changes_no_answer(clip, tmp_path, monkeypatch, capfd, same):
    answers = itertools.repeat(0) if same else itertools.count()
    monkeypatch.setattr(clip_tasks, "guessed", lambda task: torch.full((len(task.features),), next(answers)))
    clip.autocast = torch.bfloat16
    task = Both(clip, tmp_path).evaluations[0].tasks["objects"]
    assert clip.autocast == (torch.bfloat16 if same else None)
    assert ("24 of 24 top-1 answers; evaluations are in float32" in capfd.readouterr().out) != same
    with torch.no_grad():
        exact = (task.features - clip.encode_image(task.pictures.images)).abs().max()
    assert 1e-4 < exact < 0.05 if same else exact < 1e-6


def test_a_plain_edit_leaves_the_model_and_its_parameters_alone(clip, tmp_path):
    both = Both(clip, tmp_path)
    module, before = clip.module, {n: p.clone() for n, p in clip.parameters.items()}
    layer = next(iter(clip.candidates()))
    with pytest.raises(KeyboardInterrupt), both.evaluations[1].applied(random_edit(clip, layer)):
        assert clip.module is not module and not torch.equal(clip.parameters[layer], before[layer])
        raise KeyboardInterrupt
    assert clip.module is module and tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


def test_the_search_by_the_plain_way_writes_the_same_log(taught_clip, tiny_world, tmp_path, monkeypatch):
    """a2 with --plain and with --log-all: every line of every step log, the winner, and the report."""
    from test_stages import PLOTS, Run, plots

    for name in PLOTS:
        monkeypatch.setattr(plots, name, lambda *a, **k: None)
    run = Run(tiny_world, taught_clip / "open_clip", tmp_path)
    tiny.run("a0_create_tar", *run.a0())
    tiny.run("a1_compute_grad", *run.a1())
    logs, records = [], []
    for flag in ("--log-all", "--plain"):
        tiny.run("a2_unlearn_slug", *run.a2(), "--celeb-name", "Alien", flag, "--force")
        logs.append({p.name: p.read_text() for p in sorted((run.results / "clip" / "steps").glob("*Alien*.txt"))})
        records.append(run.record("Alien"))
    assert logs[0] == logs[1] and len(logs[0]) > 1
    for key in ("layer", "step", "n_candidates"):
        assert records[0][key] == records[1][key]
    for split in ("validation", "test"):
        for state in ("original", "slug"):
            assert records[0]["splits"][split][state] == pytest.approx(records[1]["splits"][split][state], nan_ok=True)


def test_candidates_of_one_state_share_their_classifier(clip, tmp_path, monkeypatch):
    both = Both(clip, tmp_path)
    evaluation, made = both.evaluations[0], []
    features = towers.Tower.features
    monkeypatch.setattr(
        towers.Tower,
        "features",
        lambda self, *a, **k: made.append(self.encoder) or features(self, *a, **k),
    )
    layer = next(n for n, e in clip.candidates().items() if e == "language")
    rows = torch.arange(4)
    with evaluation.same_weights():
        first = evaluation.sides("objects", rows, layer)[1]
        with evaluation.same_weights():
            assert torch.equal(evaluation.sides("objects", rows, layer)[1], first)
    assert made == ["language"]
    evaluation.sides("objects", rows, layer)
    assert made == ["language", "language"]  # outside, nothing is remembered: the weights may have changed


def test_the_winner_is_the_same_with_and_without_everything_logged(clip, tmp_path):
    """Early stopping and reuse choose what a full look chooses (random weights forget at once: retain decides)."""
    both = Both(clip, tmp_path)
    fronts = [n for n, e in clip.candidates().items()][::5]
    rows = [layers.Layer(n, clip.encoder(n), 1.0, 0.0) for n in fronts]
    forget = {n: t for name in fronts for n, t in random_edit(clip, name).items()}
    best = {}
    for log_all in (False, True):
        _, best[log_all] = slug.search_all(clip, both.judges[0], rows, forget, evaluations=4, log_all=log_all)
    assert (best[False].layer, best[False].step) == (best[True].layer, best[True].step)
    if best[True].forgets:
        assert best[False].retain == pytest.approx(best[True].retain)
