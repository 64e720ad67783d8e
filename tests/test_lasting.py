"""Does it last: coarser weights, relearning and sums of features alone, verdicts, then the stage on the tiny world."""

import json
import os
import subprocess
import sys
import types

import pandas as pd
import pytest
import tiny
import torch

from slug import models, schema
from slug.data import evaluation_sets
from slug.data.names import plain_name
from slug.data.pairs import Pairs
from slug.data.splits import validation_mask
from slug.evaluation import clip_tasks, durability, zeroshot
from slug.methods import training
from slug.reports import durability_report, plots

NAMES = ("Alien", "Bento_Box")


def weights(clip):
    return {n: p.detach().clone() for n, p in clip.parameters.items()}


# ------------------------------------------------------------------------------------------------------ coarser weights


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_what_a_plain_loop_does(bits):
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(bits))
    weight[2] = 0
    top = {8: 127, 4: 7}[bits]
    got = durability.round_to_nearest(weight, bits)
    for row, found in zip(weight.tolist(), got.tolist(), strict=True):
        scale = max(abs(x) for x in row) / top
        assert found == pytest.approx([scale * round(x / scale) if scale else 0 for x in row], rel=1e-5, abs=1e-7)
    assert not torch.equal(got, weight) and torch.equal(durability.round_to_nearest(weight.view(5, 1, 7), bits)[:, 0], got)


def test_weights_are_coarse_within_the_context_and_as_before_after_it(clip):
    before = weights(clip)
    for form, levels in (("int8", 255), ("4-bit", 15)):
        with pytest.raises(RuntimeError, match="stop"), durability.quantised(clip, form):
            views = {n: v.flatten(1) for n, v in clip.canonical_views(weights(clip)).items() if v.ndim > 1}
            linear = [n for n in views if "embeddings" not in n or "patch" in n]
            # The output channels stand in front in canonical names: each has a scale of its own, projections too.
            assert all(len(row.unique()) <= levels for n in linear for row in views[n])
            assert any("text_projection" in n for n in linear) and any("visual_projection" in n for n in linear)
            kept = [n for n, p in before.items() if torch.equal(p, clip.parameters[n])]
            assert any("token_embedding" in n for n in kept) and any("bias" in n for n in kept)
            assert not any(n.endswith(("proj.weight", "in_proj_weight")) for n in kept)
            raise RuntimeError("stop")
        assert tiny.same_tensors(weights(clip), before)
    with durability.quantised(clip, "fp16"):
        assert all(torch.equal(p, before[n].half().float()) for n, p in clip.parameters.items())
    assert tiny.same_tensors(weights(clip), before)


# ----------------------------------------------------------------------------------------------------------- relearning


def test_relearning_learns_and_leaves_the_model_as_it_was(tiny_clip):
    clip, forget, retain = tiny.load(tiny_clip), tiny.pairs(12), tiny.pairs(40, seed=1)
    before = weights(clip)

    def distance():
        image, text = tiny.features(clip, Pairs(forget.images[:1], forget.captions[:1], [], 0))
        return (image - text).norm().item()

    start = distance()
    assert list(durability.relearn(clip, forget, retain, count=0, steps=12, lr=1e-3)) == list(range(1, 13))
    assert tiny.same_tensors(weights(clip), before)
    for step in durability.relearn(clip, forget, retain, count=0, steps=12, lr=1e-3):
        if step == 10:
            assert distance() < start - 0.05
            break  # the generator is closed, as where a test fails in between
    assert tiny.same_tensors(weights(clip), before) and not any(p.requires_grad for p in clip.parameters.values())


def test_a_relearning_batch_holds_the_chosen_forget_pairs_and_fresh_retain_pairs(tiny_clip, monkeypatch):
    clip, forget, retain = tiny.load(tiny_clip), tiny.pairs(12, names=("ghost",)), tiny.pairs(40, seed=1)
    asked = []
    monkeypatch.setattr(durability, "train", lambda _, passes, schedule, each_step: asked.append((passes, schedule)) or [])
    for count, most in ((2, 2), (0, durability.FORGET_PAIRS)):
        list(durability.relearn(clip, forget, retain, count=count, steps=6, lr=1e-3))
        passes, schedule = asked.pop()
        batches = [p.pairs.captions for p in passes]
        mine = [[c for c in b if c.startswith("ghost")] for b in batches]
        assert {len(m) for m in mine} == {most} and {len(b) for b in batches} == {durability.BATCH}
        chosen = {forget.captions[i] for i in durability.chosen_pairs(forget, count, 0).tolist()}
        assert len(chosen) == (count or 12) and set().union(*mine) <= chosen
        assert len({tuple(b) for b in batches}) == 6
        assert [training.cosine(s, 6, schedule) for s in range(6)] == [1e-3] * 6


# ------------------------------------------------------------------------------------------------- spellings and sums


def test_other_spellings_are_others():
    found = durability.spellings("Police Officer", ["cop"])
    assert set(found.values()) == {
        *("police officer", "POLICE OFFICER", "Police Officers", "the Police Officer"),
        *("Police-Officer", "PoliceOfficer", "cop"),
    }
    assert "hyphen" not in durability.spellings("fox") and durability.spellings("fox")["plural"] == "foxes"
    assert durability.style_of("tropical fish/noto") == "noto" and durability.style_of("000001.jpg") == durability.NOT_TOLD


def test_a_shift_is_undone_and_a_sum_of_others_stands_for_the_name():
    """Pictures that an edit moved away from all names by one vector; a name that is a sum of two others."""
    g = torch.Generator().manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(6, 16, generator=g), dim=1)
    names[0] = torch.nn.functional.normalize(names[1] + 2 * names[2] + 0.05 * names[3].roll(1), dim=0)
    labels = torch.tensor([0] * 5 + [1, 2, 3, 4, 5] * 4)
    shift = 3 * torch.nn.functional.normalize(names[4] - names[0], dim=0)
    pictures = names[labels] + 0.05 * torch.randn(len(labels), 16, generator=g) + shift

    class Fake(durability.Subject):
        def __init__(self, features):
            self.features = features
            self.target, self.task = types.SimpleNamespace(label=0), types.SimpleNamespace(weights=names)
            self.rows, self.others = torch.arange(5), {"validation": torch.arange(5, 25)}
            self.labels, self.blocks, self.groups = labels[:5], torch.zeros(6, dtype=torch.long), ["a"] * 5
            self.task.pictures = types.SimpleNamespace(seen=torch.zeros(25, dtype=torch.bool))

        def sides(self, rows, edited):
            return self.features[rows].clone(), names.clone()

    assert not (zeroshot.ranks(pictures[:5], names, labels[:5], torch.zeros(6)) < 1).any()
    shifted, rebuilt = Fake(pictures).arithmetic(None)
    assert shifted["value"] == 1 and shifted["setting"] == "shifted" and rebuilt["value"] == 0
    assert Fake(pictures - shift).arithmetic(None)[1]["value"] == 1


# ------------------------------------------------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def run(taught_clip, tiny_world, tmp_path_factory):
    """A folder with SLUG's and two baselines' records of two names, and the flags of a7."""
    folder = tmp_path_factory.mktemp("lasting")
    laion = tiny_world / "laion" / "laion400m"
    tars = ["--tar-dir", folder / "tars"]
    common = ["--result-dir", folder / "results", "--workers", "0", "--device", "cpu"]
    images = ["--image-dir", folder / "pictures", "--known-names", tiny_world / "names.txt"]
    tiny.run("a0_create_tar", "--name", *NAMES, "--laion-dir", laion, *tars, *images, *common)
    flags = ["--celeb-name", *NAMES, *tars, "--train-data", laion / "00000.tar", *common]
    flags += ["--model", f"local-dir:{taught_clip / 'open_clip'}"]
    tiny.run("a1_compute_grad", *flags)
    flags += ["--val-data", tiny_world / "celeba", "--imagenet-val", tiny_world / "ImageNet" / "val"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a baseline that is trained again is the same one then, to the last bit
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pareto", "steps", "similarity", "pictures"):
            patch.setattr(plots, name, lambda *a, **k: None)
        tiny.run("a2_unlearn_slug", *flags, "--evaluations", "3")
    tiny.run("a3_unlearn_compare", *flags, "--unlearn-method", "ft", "salun", "--lr", "1e-3", "--epochs", "2")
    aliases = folder / "aliases.csv"
    aliases.write_text("name,alias\nalien,extraterrestrial\nghost,spectre\nbento box,\n")
    flags += ["--aliases", aliases, "--relearn-lr", "1e-3", "--relearn-steps", "1", "3", "--relearn-pictures", "2", "0"]
    yield types.SimpleNamespace(folder=folder, clip=folder / "results/clip", out=folder / "results/lasting", flags=flags)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frame(run):
    """The rows of a finished run."""
    readme = run.folder / "README.md"
    readme.write_text("# X\n<!-- lasting -->\nnone\n<!-- /lasting -->\n")
    tiny.run("a7_lasting", *run.flags, "--readme", readme)
    return pd.read_parquet(run.out / "runs.parquet")


def record(run, method, name):
    part = "" if method == "slug" else f"{method}-"
    return json.loads((run.clip / f"open_clip-{part}{name}.json").read_text())


def test_every_edit_is_tested_and_scores_what_its_record_says(run, frame):
    """A baseline that is trained again is the one on record; of SLUG the deltas are read."""
    assert set(zip(frame["name"], frame["method"], frame["test"], strict=True)) == {
        (plain_name(n), m, t) for n in NAMES for m in ("slug", "ft", "salun") for t in schema.TESTS
    }
    assert not frame.duplicated(["name", "method", "test", "setting"]).any()
    for name in NAMES:
        for method in ("slug", "ft", "salun"):
            row = frame[(frame["name"] == plain_name(name)) & (frame["method"] == method) & (frame["test"] == "edit")].iloc[
                0
            ]
            split = record(run, method, name)["splits"]["test"]
            for column, state in (("value", method), ("original", "original")):
                assert row[column] == pytest.approx(split[state]["forget_acc1"])
            for task in ("identities", "objects"):  # all retain pictures of the tiny world are scored
                assert row[f"{task}_acc1"] == pytest.approx(split[method][f"{task}_acc1"])
                assert row[f"original_{task}"] == pytest.approx(split["original"][f"{task}_acc1"])
            assert (row["n"], row["n_drawings"]) == (split[method]["n_forget"], split[method]["n_drawings"])
    assert frame["value"].between(0, 1).all() and (frame["low"] <= frame["value"]).all()


def test_rows_of_a_test_say_what_they_are_of(frame):
    mine = frame[(frame["name"] == "Alien") & (frame["method"] == "slug")].set_index("test")
    edit = mine.loc["edit"]
    assert list(mine.loc["quantisation", "setting"]) == list(durability.FORMS)
    relearned = mine.loc["relearning"]
    assert list(relearned["steps"]) == [0, 1, 3] * 2 and (relearned["original"] == edit["original"]).all()
    assert (relearned[relearned["steps"] == 0]["value"] == edit["value"]).all()
    spelled = set(mine.loc["other spelling", "setting"])
    assert {"upper case: ALIEN", "synonym 1: extraterrestrial"} <= spelled and not any("spectre" in s for s in spelled)
    styles = mine.loc["drawing style"]
    assert (
        styles["n"].sum() == edit["n"] and styles["correct"].sum() == edit["correct"] and len(styles) == edit["n_drawings"]
    )
    assert durability.NOT_TOLD not in set(styles["setting"])
    assert (mine.loc["linear probe", "chance"], mine.loc["edit", "chance"]) == (0.5, 0)
    made = json.loads(edit["made_with"])
    assert made["settings"]["relearn_lr"] == 1e-3 and made["versions"]["torch"] and made["aliases"] == ["extraterrestrial"]


def test_the_report_the_curves_and_the_readme_are_of_these_rows(run, frame):
    text, readme = (run.out / "REPORT.md").read_text(), (run.folder / "README.md").read_text()
    wanted = durability_report.overview(durability_report.table(frame))
    assert wanted in text and wanted in readme and wanted.splitlines()[0] == "| test | slug | ft | salun |"
    assert (run.out / "open_clip-relearning.png").is_file() and "](open_clip-relearning.png)" in text
    assert not tiny.left_over(run.folder)


def test_what_is_finished_is_kept(run, frame, monkeypatch):
    """Nothing is done again; then one edit's rows are lost, and only these are made, the same."""

    def never(*args, **more):
        raise AssertionError("was done again")

    monkeypatch.setattr(durability, "Subject", never)
    tiny.run("a7_lasting", *run.flags)
    assert pd.read_parquet(run.out / "runs.parquet").equals(frame)
    tiny.run("a7_lasting", *run.flags, "--report")
    with pytest.raises(AssertionError, match="done again"):
        tiny.run("a7_lasting", *run.flags, "--relearn-lr", "1e-4")
    monkeypatch.undo()

    lost = (frame["name"] == "Alien") & (frame["method"] == "salun") & (frame["test"].isin(["edit", "linear probe"]))
    frame[~lost].to_parquet(run.out / "runs.parquet", index=False)
    done = []
    for test in ("edit", "quantisation", "relearning", "probe", "spelling", "style", "arithmetic"):
        plain = getattr(durability.Subject, test)

        def noted(self, edited, *args, plain=plain, test=test, **more):
            done.append((self.target.name, test, edited))
            return plain(self, edited, *args, **more)

        monkeypatch.setattr(durability.Subject, test, noted)
    tiny.run("a7_lasting", *run.flags)
    assert sorted(d[:2] for d in done if d[2]) == [("Alien", "edit"), ("Alien", "probe")]
    key = ["name", "method", "test", "setting"]
    again = pd.read_parquet(run.out / "runs.parquet").sort_values(key, ignore_index=True).drop(columns="seconds")
    pd.testing.assert_frame_equal(again, frame.sort_values(key, ignore_index=True).drop(columns="seconds"))


def test_processes_share_the_names_and_what_a_killed_one_finished_is_kept(run, frame, tmp_path):
    out, quick = tmp_path / "results/lasting", frame["test"].isin(["edit", "linear probe"]) & (frame["method"] == "slug")
    (out / "parts").mkdir(parents=True)
    (tmp_path / "results/grads").symlink_to(run.folder / "results/grads")
    killed = (frame["test"] == "quantisation") & (frame["name"] == "Alien")
    frame[killed].assign(seconds=-1.0).to_parquet(out / "parts/7.parquet", index=False)
    frame[~(quick | killed)].to_parquet(out / "runs.parquet", index=False)
    command = [sys.executable, tiny.ROOT / "src/clip/a7_lasting.py", *run.flags, "--records", run.clip, "--jobs", "2"]
    command += ["--result-dir", tmp_path / "results"]
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    key, got = ["name", "method", "test", "setting"], pd.read_parquet(out / "runs.parquet")
    assert (got[got["seconds"] == -1]["test"] == "quantisation").sum() == killed.sum() and not (out / "parts").exists()
    wanted = frame.sort_values(key, ignore_index=True).drop(columns="seconds")
    pd.testing.assert_frame_equal(got.sort_values(key, ignore_index=True).drop(columns="seconds"), wanted)


def test_a_second_model_has_rows_of_its_own_and_the_report_is_of_one(run, frame, taught_clip, tmp_path):
    """Rows of the same names by another model stay where one model's are made again, and are no part of its report."""
    results, out, other = tmp_path / "results", tmp_path / "reference", frame.assign(model="other", made_with="x", value=1.0)
    (results / "lasting").mkdir(parents=True)
    (results / "grads").symlink_to(run.folder / "results/grads")
    lost = (frame["test"] == "linear probe") & (frame["method"] == "slug") & (frame["name"] == "Alien")
    pd.concat([other, frame[~lost]]).to_parquet(results / "lasting/runs.parquet", index=False)
    flags = [*run.flags, "--records", run.clip, "--result-dir", results, "--out", out]
    tiny.run("a7_lasting", *flags)
    rows = pd.read_parquet(results / "lasting/runs.parquet")
    assert list(rows["model"].value_counts()[["other", "open_clip"]]) == [len(other), len(frame)]
    key = ["name", "method", "test", "setting"]
    reported = pd.read_parquet(out / "runs.parquet")
    assert set(reported["model"]) == {"open_clip"} and not reported.duplicated(key).any() and len(reported) == len(frame)
    plot = {f"open_clip-relearning.{end}" for end in ("png", "pdf")}
    assert {p.name for p in out.iterdir()} == {"runs.parquet", "REPORT.md"} | plot
    assert {p.name for p in (results / "lasting").iterdir()} == {"runs.parquet"}
    text = (out / "REPORT.md").read_text()
    assert durability_report.overview(durability_report.table(reported)) in text
    for more, model in ((["--report"], "open_clip"), (["--report", "--model", "other"], "other")):
        tiny.run("a7_lasting", *flags, *more)
        assert set(pd.read_parquet(out / "runs.parquet")["model"]) == {model}
    for family in tiny.FAMILIES:
        folder = taught_clip / family
        named = {"model": f"local-dir:{folder}"} if family == "open_clip" else {"clip_model_id": str(folder)}
        assert models.label_of(**named) == tiny.load_folder(folder).label == family
    assert models.label_of("ViT-B-32") == "ViT-B-32" and models.label_of("", "a/b c") == "a-b-c"


def test_the_probe_is_tested_on_drawings_that_it_was_not_trained_on(run, taught_clip):
    clip = tiny.load(taught_clip)
    flag = dict(zip(run.flags[::1], run.flags[1:], strict=False))
    identities = evaluation_sets.load_celeba(flag["--val-data"], clip.transform)
    objects = evaluation_sets.load_imagenet(flag["--imagenet-val"], clip.transform)
    evaluation = clip_tasks.Evaluation(clip, identities, objects, cache_gb=0)
    split = {"identities": validation_mask(identities, 0), "objects": validation_mask(objects, 0)}
    pairs = tiny.pairs(4)
    for name in NAMES:
        target = evaluation.target(name)
        pictures = evaluation.tasks[target.task].pictures
        subject = durability.Subject(clip, evaluation, split, target, pairs, pairs, limit=20)
        trained, tested = (
            {pictures.groups[i] for i in torch.cat([mine, subject.others[part]]).tolist()}
            for part, mine in (("validation", subject.known), ("test", subject.rows))
        )
        assert trained and tested and not trained & tested
        assert all((pictures.labels[r] != target.label).all() and len(r) <= 20 for r in subject.others.values())
        (row,) = subject.probe(None)
        assert row["n_train"] == len(subject.known) and row["n"] == len(subject.rows)
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1


def test_expected_failures_end_in_one_line(run, frame, tmp_path, monkeypatch, capfd):
    def fails(*more):
        return tiny.failure(monkeypatch, capfd, "a7_lasting", *run.flags, *more)

    assert "no records of open_clip" in fails("--records", tmp_path) and "run_clip_slug.sh" in fails("--records", tmp_path)
    assert "no record of any method for Dragon" in fails("--celeb-name", "Dragon")
    assert "no record of ssd for Alien" in fails("--unlearn-method", "slug", "ssd")
    assert "CSV of aliases not found" in fails("--aliases", tmp_path / "none.csv")
    assert "must be above 0" in fails("--relearn-lr", "0")
    assert "made with another model or other data" in fails("--tar-dir", other_tars(run, tmp_path), "--force")
    for method in ("slug", "ft"):  # both kinds of record: the seed draws the halves
        line = fails("--seed", "1", "--unlearn-method", method)
        assert f"record of {method} for Alien was made with --seed 0, this run has --seed 1" in line

    for path in run.clip.glob("open_clip-Alien*.json"):
        (tmp_path / path.name).write_text(path.read_text())  # a record whose delta is not there
    assert "delta not found" in fails("--records", tmp_path, "--celeb-name", "Alien")
    lame = {k: v for k, v in record(run, "ft", "Alien").items() if k != "inputs"}
    (tmp_path / "open_clip-ft-Alien.json").write_text(json.dumps(lame))
    more = ["--records", tmp_path, "--celeb-name", "Alien", "--unlearn-method", "ft"]
    assert "is no whole record: it lacks 'inputs'" in fails(*more)
    out = tmp_path / "results" / "lasting"
    out.mkdir(parents=True)
    assert "has no rows of open_clip on Alien, Bento_Box" in fails("--result-dir", tmp_path / "results", "--report")
    (out / "runs.parquet").write_bytes(b"PAR1, and no more")
    assert "no whole Parquet file" in fails("--result-dir", tmp_path / "results", "--report")


def other_tars(run, folder):
    """A folder of forget sets that are not those of the records."""
    for name in NAMES:
        tiny.write_pairs(folder / "tars" / f"{name}.tar", [f"{name} {i}" for i in range(6)])
    return folder / "tars"
