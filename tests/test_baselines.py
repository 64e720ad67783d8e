"""The baselines: each method's update against a few lines of plain torch, the grid, resuming, and their report."""

import json
import math
import types

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from slug import files, methods
from slug.core import gradients, losses, selection
from slug.core.edit import holding, kept
from slug.evaluation import membership
from slug.experiments import comparison
from slug.methods import grids, salun, ssd, training
from slug.reports import plots

LR = 1e-3


@pytest.fixture
def small(tiny_clip):
    """models.Clip with a forget set and a retain set of one batch each, and the forget gradient."""
    clip = tiny.load(tiny_clip)
    forget, retain = tiny.pairs(6), tiny.pairs(8, seed=1)
    gradient, _ = gradients.compute(clip, forget, losses.cosine_embedding)
    return clip, methods.Material(forget, retain, "", gradient)


def weights(clip):
    return {n: p.detach().clone() for n, p in clip.parameters.items()}


def after(clip, method, material, epochs=1):
    """The weights after a method's last epoch; the model itself is as before."""
    module, _ = methods.split(method)
    schedule = training.Schedule(LR, epochs=epochs)
    with kept(clip, clip.parameters):
        numbers = list(module.candidates(clip, material, schedule))
        assert numbers == list(range(1, epochs + 1))
        return weights(clip)


def plain(clip, values, rate_of):
    """AdamW by hand-written calls: `values` are functions of no argument that return the loss to descend, one a step."""
    with kept(clip, clip.parameters):
        parameters = [p.requires_grad_(True) for p in clip.parameters.values()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0},
        ]
        optimiser = torch.optim.AdamW(groups)
        for number, value in enumerate(values):
            for group in optimiser.param_groups:
                group["lr"] = rate_of(number)
            optimiser.zero_grad()
            value().backward()
            optimiser.step()
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None
        return weights(clip)


def loss_of(clip, pairs, kind):
    """The loss of all pairs, written out."""
    image = clip.encode_image(pairs.images)
    text = clip.encode_text(clip.tokenize(pairs.captions))
    if kind == "cosine":
        return 1 - (image * text).sum(1).mean()
    logits = clip.module.logit_scale.exp() * image @ text.T
    return -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2


EXPECTED = {  # method -> [(set, loss, sign)] of one epoch
    "ft": [("retain", "contrastive", 1)],
    "ga": [("forget", "cosine", -1)],
    "gaft": [("forget", "cosine", -1), ("retain", "contrastive", 1)],
    "ga_o": [("forget", "contrastive", -1)],
    "gaft_o": [("forget", "contrastive", -1), ("retain", "contrastive", 1)],
}


@pytest.mark.parametrize("method", EXPECTED)
def test_an_epoch_is_what_plain_torch_does(small, method):
    clip, material = small
    material = material._replace(form=methods.split(method)[1])
    before, steps = weights(clip), EXPECTED[method]
    got = after(clip, method, material)
    values = [lambda s=s, k=k, sign=sign: sign * loss_of(clip, getattr(material, s), k) for s, k, sign in steps]
    want = plain(clip, values, lambda n: LR * 0.5 * (1 + math.cos(math.pi * n / len(steps))))
    assert tiny.same_tensors(weights(clip), before)
    moved = max((want[n] - before[n]).abs().max().item() for n in want)
    assert moved > LR / 2
    for name, value in want.items():
        # AdamW's first step is lr * sign(g): where g is rounding noise around 0 its sign may differ, as in the biases of
        # the keys, which no softmax feels.
        if name.endswith("in_proj_bias"):
            continue
        off = (got[name] - value).abs() > 1e-5
        assert off.float().mean() < 0.02, name


def test_the_forget_loss_rises_under_ga_and_the_retain_loss_falls_under_ft(small):
    """Trap 2: a baseline with the sign wrong would bring picture and name closer together."""
    clip, material = small
    start = {s: loss_of(clip, getattr(material, s), k).item() for s, k in (("forget", "cosine"), ("retain", "contrastive"))}
    with holding(clip, after(clip, "ga", material, epochs=3)):
        assert loss_of(clip, material.forget, "cosine").item() > start["forget"] + 0.01
    with holding(clip, after(clip, "ft", material, epochs=3)):
        assert loss_of(clip, material.retain, "contrastive").item() < start["retain"] - 0.01


def test_salun_is_gaft_inside_its_mask_and_nothing_outside(small):
    clip, material = small
    before = weights(clip)
    mask = salun.mask(material.gradient)
    inside = sum(int(m.sum()) for m in mask.values())
    total = sum(m.numel() for m in mask.values())
    assert inside == round(0.5 * total)
    smallest_in = min(material.gradient[n][m].abs().min().item() for n, m in mask.items() if m.any())
    largest_out = max(material.gradient[n][~m].abs().max().item() for n, m in mask.items() if not m.all())
    assert smallest_in >= largest_out
    got, gaft = after(clip, "salun", material, epochs=2), after(clip, "gaft", material, epochs=2)
    assert all(torch.equal(got[n][~m], before[n][~m]) for n, m in mask.items())
    assert any(not torch.equal(gaft[n][~m], before[n][~m]) for n, m in mask.items())
    one, gaft = after(clip, "salun", material), after(clip, "ga", material)
    moved = {n: (one[n] != before[n]) for n in mask}
    assert all((moved[n] & ~m).sum() == 0 for n, m in mask.items()) and any(m.any() for m in moved.values())


def test_ssd_dampens_by_its_formula_from_the_original_weights(small):
    """Trap 6: the published dampening compounds; here every candidate starts from the original weights."""
    clip, material = small
    g = torch.Generator().manual_seed(0)
    forget = {n: torch.rand(p.shape, generator=g) for n, p in clip.parameters.items()}
    retain = {n: torch.rand(p.shape, generator=g) * 0.2 for n, p in clip.parameters.items()}
    retain[next(iter(retain))].zero_()
    before = weights(clip)
    material = material._replace(forget_importance=forget, retain_importance=retain)
    with kept(clip, clip.parameters):
        for number in ssd.candidates(clip, material, 10.0):
            strength = 0.1 + (number - 1) * (5 - 0.1) / 9
            for name in ("visual.proj", "text_projection", "ln_final.bias"):
                flat = before[name].flatten().tolist()
                f, r = forget[name].flatten().tolist(), retain[name].flatten().tolist()
                want = [w * min(strength * b / a, 1) if a > 10 * b else w for w, a, b in zip(flat, f, r, strict=True)]
                assert clip.parameters[name].flatten().tolist() == pytest.approx(want, rel=1e-5, abs=1e-7)
        assert number == 10


def test_the_schedule_warms_up_and_ends_at_zero():
    schedule = training.Schedule(2.0, warmup=4)
    assert [training.cosine(s, 24, schedule) for s in (0, 3, 4, 14, 24)] == pytest.approx([0.5, 2, 2, 1, 0])


def test_a_bad_learning_rate_is_refused_and_leaves_the_model_alone(small):
    clip, material = small
    before = weights(clip)
    with pytest.raises(methods.SlugError, match="lower --lr"), kept(clip, clip.parameters):
        list(methods.METHODS["ft"].candidates(clip, material, training.Schedule(1e30, epochs=4)))
    assert tiny.same_tensors(weights(clip), before)
    assert not any(p.requires_grad for p in clip.parameters.values())


def test_the_grid_grows_at_the_end_the_best_lies_at_and_stops():
    asked = [1e-5, 1e-4]
    assert grids.beyond(asked, [1e-4], asked, 2) == [3.2e-4]
    assert grids.beyond(asked, [1e-5, 1e-4], asked, 2) == [3.2e-6, 3.2e-4]
    grid = [1e-5, 1e-4, 3.2e-4]
    assert grids.beyond(grid, [1e-4], asked, 2) == []  # inside
    assert grids.beyond([*grid, 1e-3], [1e-3], asked, 2) == []  # two half decades are spent
    assert grids.beyond([1e-5], [1e-5], [1e-5], 4) == []  # one learning rate is no grid
    assert grids.beyond(asked, [1e-4], asked, 0) == []


# -------------------------------------------------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def run(taught_clip, tiny_world, tmp_path_factory):
    """A folder with forget sets, gradients and importances of two names, and the flags of a3."""
    folder = tmp_path_factory.mktemp("compare")
    names = ("Alien", "Bento_Box")
    tars = ["--tar-dir", folder / "tars"]
    common = ["--result-dir", folder / "results", "--workers", "0", "--device", "cpu"]
    laion = tiny_world / "laion" / "laion400m"
    images = ["--image-dir", folder / "pictures", "--known-names", tiny_world / "names.txt"]
    tiny.run("a0_create_tar", "--name", *names, "--laion-dir", laion, *tars, *images, *common)
    flags = ["--celeb-name", *names, *tars, "--train-data", laion / "00000.tar", *common]
    flags += ["--model", f"local-dir:{taught_clip / 'open_clip'}"]
    for method in ("calc_grad", "calc_importance"):
        tiny.run("a1_compute_grad", *flags, "--unlearn-method", method)
    flags += ["--val-data", tiny_world / "celeba", "--imagenet-val", tiny_world / "ImageNet" / "val"]
    slug = [*flags, "--evaluations", "3", "--trace", "8"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pareto", "steps", "similarity", "pictures"):
            patch.setattr(plots, name, lambda *a, **k: None)
        tiny.run("a2_unlearn_slug", *slug)
    return types.SimpleNamespace(
        folder=folder, flags=[*flags, "--trace", "8", "--epochs", "2", "--forget-epochs", "2"], names=names
    )


def records_of(folder):
    return {p.name: json.loads(p.read_text()) for p in sorted((folder / "results" / "clip").glob("*.json"))}


TIMES = {"seconds", "gradient_s", "shared_s", "search_s", "peak_mem_mb"}


def without_times(record):
    """A record without what differs between two equal runs."""
    if isinstance(record, dict):
        return {k: without_times(v) for k, v in record.items() if k not in TIMES}
    return record


def test_all_methods_run_resume_and_report(run, monkeypatch, capfd):
    """One run over all methods; then a run that is stopped in the middle and resumed gives the same records."""
    flags = [
        *run.flags,
        "--unlearn-method",
        "raw",
        "ft",
        "ga",
        "gaft",
        "salun",
        "ssd",
        "--lr",
        "1e-4",
        "1e-3",
        "--grow",
        "1",
    ]
    tiny.run("a3_unlearn_compare", *flags)
    said = capfd.readouterr().out
    assert said.count("raw: iter: 0, ratio: 0, fgt_acc@1:") == 2
    first = records_of(run.folder)
    for method in ("ft", "ga", "gaft", "salun", "ssd"):
        for name in run.names:
            record = next(r for n, r in first.items() if f"-{method}-{name}.json" in n)
            count = 10 if method == "ssd" else 2
            assert record["n_candidates"] == count * len(record["grid"])
            assert record["setting"] in record["grid"] and {"original", method} == set(record["splits"]["test"])
            assert record["params_touched"] > 0 or method == "ssd"
    clip = run.folder / "results" / "clip"
    assert not list(clip.rglob("*.safetensors")) or all("delta" in p.name for p in clip.rglob("*.safetensors"))
    lines = next((clip / "compare").glob("*_Alien_ga_lr0.001.txt")).read_text().splitlines()
    assert lines[1].startswith("iter: 0,") and lines[-1].startswith("iter: 2, ratio: 0.001, fgt_acc@1: ")
    assert all(", time: " in line for line in lines[1:])

    # Valid records are kept: nothing trains.
    monkeypatch.setattr(comparison.Comparison, "run", None)
    tiny.run("a3_unlearn_compare", *flags)
    monkeypatch.undo()
    assert records_of(run.folder) == first

    # Stop after three jobs, as a kill would, then go on.
    for path in [*clip.glob("*-g*-*.json"), *(clip / "compare").glob("*")]:
        path.unlink()
    jobs, train = [], comparison.Comparison.run

    def stopping(self, names, method, setting):
        train(self, names, method, setting)
        jobs.append((tuple(names), method, setting))
        if len(jobs) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(comparison.Comparison, "run", stopping)
    flags = [*run.flags, "--unlearn-method", "ga", "gaft", "--lr", "1e-4", "1e-3", "--grow", "1"]
    with pytest.raises(KeyboardInterrupt):
        tiny.run("a3_unlearn_compare", *flags)
    monkeypatch.undo()
    trained, update = [], training.train
    monkeypatch.setattr(
        methods.ga, "train", lambda clip, passes, schedule: trained.append(schedule.lr) or update(clip, passes, schedule)
    )
    tiny.run("a3_unlearn_compare", *flags)
    again = records_of(run.folder)
    assert {n: without_times(r) for n, r in again.items()} == {n: without_times(r) for n, r in first.items()}
    done = [j for j in jobs if j[1] == "ga"]
    everything = sum(len(r["grid"]) for n, r in first.items() if "-ga-" in n)
    assert len(trained) == everything - len(done)

    # The report has all methods, on the names that all ran on.
    tiny.run("a4_report", "--result-dir", run.folder / "results")
    out = clip / "report"
    text = (out / "report.md").read_text()
    assert "## Comparison" in text and "SLUG against" not in text.split("## Comparison")[0]
    table = pd.read_csv(out / "table.csv")
    assert set(table["method"]) == {"original", "slug", "ft", "ga", "gaft", "salun", "ssd"}
    assert (table.groupby(["name", "split", "method"]).size() == 1).all()
    assert r"\begin{tabular}" in (out / "comparison.tex").read_text()
    assert len(list(clip.glob("*-tradeoff-*.png"))) == 2 and list(clip.glob("*-costs.png"))

    # Elsewhere the choices are taken from that table, without a search, and give the same weights and figures.
    where = run.folder / "stored"
    where.mkdir()
    (where / "grads").symlink_to(run.folder / "results" / "grads")
    stored = [*run.flags, "--unlearn-method", "ft", "ga", "ssd", "--settings-from", str(out / "table.csv")]
    tiny.run("a3_unlearn_compare", *stored, "--result-dir", str(where))
    for path in (where / "clip").glob("*.json"):
        record, wanted = json.loads(path.read_text()), first[path.name]
        assert record["grid"] == [wanted["setting"]] and record["inside_grid"] is None
        assert record["n_candidates"] == 1
        for key in ("layer", "step", "params_touched"):
            assert record[key] == wanted[key]
        assert without_times(record["splits"]) == without_times(wanted["splits"])
    assert len(list((where / "clip").glob("*.json"))) == 6
    assert "has no row of salun_o" in tiny.failure(
        monkeypatch, capfd, "a3_unlearn_compare", *stored, "--unlearn-method", "salun_o", "--result-dir", str(where)
    )


def test_importances_that_are_missing_are_named(run, tmp_path, monkeypatch, capfd):
    where = tmp_path / "results"
    (where / "grads").mkdir(parents=True)
    for source in (run.folder / "results" / "grads").iterdir():
        (where / "grads" / source.name).mkdir()
        for file in source.iterdir():
            if "importance" not in file.name:
                (where / "grads" / source.name / file.name).write_bytes(file.read_bytes())
    flags = [where if str(f) == str(run.folder / "results") else f for f in run.flags]
    line = tiny.failure(monkeypatch, capfd, "a3_unlearn_compare", *flags, "--unlearn-method", "ssd")
    assert "no gradients at" in line and "calc_importance" in line


def test_membership_is_in_percent_once():
    """Trap 6: the published MIA is multiplied by 100 twice."""
    mean, deviation = membership.membership_inference(np.linspace(0.5, 1, 40), np.linspace(-1, 0, 40))
    assert mean == 100 and deviation == 0


def test_every_candidate_of_every_learning_rate_is_open_to_the_rule():
    rows = [
        selection.Step("lr 1e-05", 1, 0.5, 0.9),
        selection.Step("lr 0.0001", 1, 0.0, 0.1, 0.8, 1, 0.7, 1, margin=-1, margin_sd=0),
    ]
    assert selection.winner(rows).layer == "lr 0.0001"
    assert comparison.label("ssd", 10.0) == "alpha 10" and comparison.label("ga_o", 1e-5) == "lr 1e-05"
    assert files.safe_name(comparison.label("ga", 3.2e-4)) == "lr-0.00032"
