"""a7_lasting.py on SLUG and two baselines: rows, report, what is kept, processes, and failures in one line."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import tiny
import torch
from tiny_run import NAMES, rel

from slug import schema
from slug.data.names import plain_name
from slug.evaluation.durability import FORMS, Subject
from slug.experiments import durability, durability_gold
from slug.reports import durability_report

METHODS = ("slug", "ft", "salun")
KEY = ["name", "method", "test", "setting"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A baseline that is trained again is the same one then, to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(done, one_thread):
    """A finished run of a7 on records of SLUG and of two baselines, with a README. Only for reading."""
    run = done.another("durability")
    shutil.copytree(done.results / "clip", run.results / "clip")
    tiny.run("a3_unlearn_compare", *run.a3())
    run.readme, run.out_dir = run.results / "README.md", run.results / "lasting"
    run.readme.write_text("# X\n<!-- lasting -->\nnone\n<!-- /lasting -->\n")
    tiny.run("a7_lasting", *run.a7(), "--readme", run.readme)
    return run


@pytest.fixture(scope="module")
def frame(run):
    """The rows of the finished run."""
    return read(run)


@pytest.fixture
def again(run, request):
    """A copy of the run that a test may change, without the report."""
    other = run.another(request.node.name)
    (other.results / "clip").symlink_to(run.results / "clip")
    other.out_dir = other.results / "lasting"
    other.out_dir.mkdir()
    shutil.copyfile(run.out_dir / "runs.parquet", other.out_dir / "runs.parquet")
    return other


def read(run):
    return pd.read_parquet(run.out_dir / "runs.parquet")


def without_times(frame):
    return frame.sort_values(KEY, ignore_index=True).drop(columns="seconds")


def record(run, method, name):
    part = "" if method == "slug" else f"{method}-"
    return json.loads((run.results / f"clip/open_clip-{part}{name}.json").read_text())


# ---------------------------------------------------------------------------------------------------------------- rows


def test_every_test_of_every_edit_has_rows(frame):
    assert set(zip(frame["name"], frame["method"], frame["test"], strict=True)) == {
        (plain_name(n), m, t) for n in NAMES for m in METHODS for t in schema.TESTS
    }
    assert not frame.duplicated(KEY).any()
    assert frame["value"].between(0, 1).all() and (frame["low"] <= frame["value"]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_an_edit_scores_what_its_record_says(run, frame, name, method):
    """A baseline that is trained again is the one on record; of SLUG the delta is read."""
    mine = (frame["name"] == plain_name(name)) & (frame["method"] == method) & (frame["test"] == "edit")
    (row,) = frame[mine].to_dict("records")
    split = record(run, method, name)["splits"]["test"]
    for column, state in (("value", method), ("original", "original")):
        assert row[column] == pytest.approx(split[state]["forget_acc1"])
    for task in schema.TASKS:  # all retained pictures of the tiny world are scored
        assert row[f"{task}_acc1"] == pytest.approx(split[method][f"{task}_acc1"])
        assert row[f"original_{task}"] == pytest.approx(split["original"][f"{task}_acc1"])
    assert (row["n"], row["n_drawings"]) == (split[method]["n_forget"], split[method]["n_drawings"])


@pytest.fixture(scope="module")
def mine(frame):
    """Rows of SLUG's edit of Alien, by test."""
    return frame[(frame["name"] == "Alien") & (frame["method"] == "slug")].set_index("test")


def test_weights_are_quantised_in_every_form(mine):
    assert list(mine.loc["quantisation", "setting"]) == list(FORMS)


def test_relearning_begins_with_the_edit(mine):
    relearned, edit = mine.loc["relearning"], mine.loc["edit"]
    assert list(relearned["steps"]) == [0, 1, 3] * 4 and (relearned["original"] == edit["original"]).all()
    ways = list(dict.fromkeys(s.rsplit(",", 1)[0] for s in relearned["setting"]))
    assert ways == ["no pictures", "2 pictures", "all pictures", "all pictures by the edited weights alone"]
    assert (relearned[relearned["steps"] == 0]["value"] == edit["value"]).all()


def test_spellings_have_the_names_own_synonyms(mine):
    spelled = set(mine.loc["other spelling", "setting"])
    assert {"upper case: ALIEN", "synonym 1: extraterrestrial"} <= spelled and not any("spectre" in s for s in spelled)


def test_styles_share_the_pictures(mine):
    styles, edit = mine.loc["drawing style"], mine.loc["edit"]
    assert styles["n"].sum() == edit["n"] and styles["correct"].sum() == edit["correct"]
    assert len(styles) == edit["n_drawings"] and schema.NOT_TOLD not in set(styles["setting"])


def test_where_every_weight_was_moved_there_is_no_row_for_the_moved_ones_alone(frame):
    assert not frame[(frame["method"] == "ft")]["setting"].str.contains("edited weights").any()


def test_merged_back_the_edit_grows_weaker(mine):
    merged = mine.loc["merged back"]
    assert list(merged["setting"]) == [f"{share}% original" for share in (10, 20, 30, 40, 50)]
    assert (merged["original"] == mine.loc["edit", "original"]).all()


def test_a_gold_model_is_put_to_the_tests_of_the_names_that_it_never_saw(again, frame, tmp_path, monkeypatch, capfd):
    """Here it is the unedited model: nothing lies between them."""
    gold = tmp_path / "gold"
    shutil.copytree(tiny.ROOT / again.model[1].removeprefix("local-dir:"), gold)
    (gold / "training.json").write_text('{"without": ["alien", "somebody else"]}')
    flags = [*again.a7(), "--gold", gold]
    tiny.run("a7_lasting", *flags, "--gold", gold, gold)  # given twice, it is tested once
    rows = read(again)
    (without,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note: no model of --gold")]
    assert "Alien" not in without and all(name in without for name in set(frame["name"]) - {"Alien"})
    found, others = rows[rows["method"] == "gold"], rows[rows["method"] != "gold"]
    assert set(found["name"]) == {"Alien"} and set(found["test"]) == set(schema.TESTS) - {"merged back"}
    assert len(others) == len(frame)
    beside = frame[(frame["name"] == "Alien") & (frame["method"] == "slug")].set_index(["test", "setting"])["original"]
    for row in found[found["test"] != "relearning"].to_dict("records"):
        assert row["value"] == pytest.approx(beside[row["test"], row["setting"]])
    text = (again.out_dir / "REPORT.md").read_text()
    assert "## Beside a model that never knew" in text and "gold | slug | ft | salun" in text
    monkeypatch.setattr(durability_gold, "Subject", never)
    tiny.run("a7_lasting", *flags)  # all is kept
    for said in ('{"without": "alien"}', '{"without": [1]}'):
        (gold / "training.json").write_text(said)
        assert "is no list of names" in tiny.failure(monkeypatch, capfd, "a7_lasting", *flags)
    (gold / "training.json").unlink()
    assert "train_clip.py --without" in tiny.failure(monkeypatch, capfd, "a7_lasting", *flags)


def test_chance_is_told(mine):
    assert (mine.loc["linear probe", "chance"], mine.loc["edit", "chance"]) == (0.5, 0)


def test_a_row_says_what_it_was_made_with(mine):
    made = json.loads(mine.loc["edit", "made_with"])
    assert made["settings"]["relearn_lr"] == 1e-3 and made["versions"]["torch"] and made["aliases"] == ["extraterrestrial"]


# -------------------------------------------------------------------------------------------------------------- report


def test_the_report_the_curves_and_the_readme_are_of_these_rows(run, frame):
    text, readme = (run.out_dir / "REPORT.md").read_text(), run.readme.read_text()
    wanted = durability_report.overview(durability_report.table(frame))
    assert wanted in text and wanted in readme and wanted.splitlines()[0] == "| test | slug | ft | salun |"
    assert (run.out_dir / "open_clip-relearning.png").is_file() and "](open_clip-relearning.png)" in text
    assert not tiny.left_over(run.results)


@pytest.fixture
def second_model(again, frame):
    """A run with rows of the same names by another model, and without one test's rows of its own."""
    lost = (frame["test"] == "linear probe") & (frame["method"] == "slug") & (frame["name"] == "Alien")
    other = frame.assign(model="other", made_with="{}", value=1.0)
    pd.concat([other, frame[~lost]]).to_parquet(again.out_dir / "runs.parquet", index=False)
    return again


def test_rows_of_another_model_stay_where_one_models_are_made_again(second_model, frame):
    tiny.run("a7_lasting", *second_model.a7())
    assert list(read(second_model)["model"].value_counts()[["other", "open_clip"]]) == [len(frame), len(frame)]


def test_the_report_is_of_one_model(second_model, frame, tmp_path):
    flags = [*second_model.a7(), "--out", tmp_path / "out"]
    tiny.run("a7_lasting", *flags)
    reported = pd.read_parquet(tmp_path / "out/runs.parquet")
    assert set(reported["model"]) == {"open_clip"} and not reported.duplicated(KEY).any() and len(reported) == len(frame)
    text = (tmp_path / "out/REPORT.md").read_text()
    assert durability_report.overview(durability_report.table(reported)) in text
    for more, model in ((["--report"], "open_clip"), (["--report", "--model", "other"], "other")):
        tiny.run("a7_lasting", *flags, *more)
        assert set(pd.read_parquet(tmp_path / "out/runs.parquet")["model"]) == {model}


def test_with_out_the_report_lies_there_alone(again, tmp_path):
    tiny.run("a7_lasting", *again.a7(), "--report", "--out", tmp_path)
    plot = {f"open_clip-relearning.{end}" for end in ("png", "pdf")}
    assert {p.name for p in tmp_path.iterdir()} == {"runs.parquet", "REPORT.md"} | plot
    assert {p.name for p in again.out_dir.iterdir()} == {"runs.parquet"}


# ------------------------------------------------------------------------------------------------------------ resuming


def never(*args, **more):
    raise AssertionError("was done again")


@pytest.mark.parametrize("more", [[], ["--report"]])
def test_what_is_finished_is_kept(again, frame, monkeypatch, more):
    monkeypatch.setattr(durability, "Subject", never)
    tiny.run("a7_lasting", *again.a7(), *more)
    assert read(again).equals(frame)


@pytest.mark.parametrize("more", [["--relearn-lr", "1e-4"], ["--force"]])
def test_other_settings_and_force_do_it_again(again, monkeypatch, more):
    monkeypatch.setattr(durability, "Subject", never)
    with pytest.raises(AssertionError, match="done again"):
        tiny.run("a7_lasting", *again.a7(), *more)


def test_rows_that_were_lost_are_made_again_the_same_and_no_others(again, frame, monkeypatch):
    lost = (frame["name"] == "Alien") & (frame["method"] == "salun") & (frame["test"].isin(["edit", "linear probe"]))
    frame[~lost].to_parquet(again.out_dir / "runs.parquet", index=False)
    done, plain = [], Subject.test

    def noted(self, test, edit):
        done.append((self.target.name, test, bool(edit.changes)))
        return plain(self, test, edit)

    monkeypatch.setattr(Subject, "test", noted)
    tiny.run("a7_lasting", *again.a7())
    assert sorted(done) == [("Alien", test, edited) for test in ("edit", "linear probe") for edited in (False, True)]
    pd.testing.assert_frame_equal(without_times(read(again)), without_times(frame))


def test_processes_share_the_names_and_what_a_killed_one_finished_is_kept(again, frame):
    some = frame["test"].isin(["edit", "linear probe"]) & (frame["method"] == "slug")
    killed = (frame["test"] == "quantisation") & (frame["name"] == "Alien")
    (again.out_dir / "parts").mkdir()
    frame[killed].assign(seconds=-1.0).to_parquet(again.out_dir / "parts/7.parquet", index=False)
    frame[~(some | killed)].to_parquet(again.out_dir / "runs.parquet", index=False)
    command = [sys.executable, tiny.ROOT / "src/clip/a7_lasting.py", *again.a7(), "--jobs", "2"]
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT / "src"), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]
    got = read(again)
    assert (got[got["seconds"] == -1]["test"] == "quantisation").sum() == killed.sum()
    assert not list((again.out_dir / "parts").glob("*"))
    pd.testing.assert_frame_equal(without_times(got), without_times(frame))


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.fixture
def fails(run, monkeypatch, capfd):
    return lambda *more: tiny.failure(monkeypatch, capfd, "a7_lasting", *run.a7(), *more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--celeb-name", "Dragon"], "no record of any method for Dragon"),
        (["--unlearn-method", "slug", "ssd"], "no record of ssd for Alien"),
        (["--aliases", "none.csv"], "CSV of aliases not found"),
        (["--relearn-lr", "0"], "must be a number above 0"),
        (["--jobs", "0"], "argument --jobs: 0: it must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_wrong_use_ends_in_one_line(fails, more, said):
    assert said in fails(*more)


@pytest.mark.parametrize("method", ["slug", "ft"])
def test_records_of_other_splits_are_refused(fails, method):
    """Both kinds of record: the seed draws the splits."""
    line = fails("--seed", "1", "--unlearn-method", method)
    assert f"record of {method} for Alien was made with --seed 0, this run has --seed 1" in line


def test_other_forget_sets_are_refused(fails, tmp_path):
    for name in NAMES:
        tiny.write_pairs(tmp_path / f"{name}.tar", [f"{name} {i}" for i in range(6)])
    assert "made with another model or other data" in fails("--tar-dir", rel(tmp_path), "--force")


def test_a_record_whose_delta_is_missing_is_named(fails, run, tmp_path):
    for path in (run.results / "clip").glob("open_clip-Alien*.json"):
        shutil.copy(path, tmp_path)
    assert "delta not found" in fails("--records", tmp_path, "--celeb-name", "Alien")


def test_a_record_that_is_not_whole_is_named(fails, run, tmp_path):
    lame = {k: v for k, v in record(run, "ft", "Alien").items() if k != "inputs"}
    (tmp_path / "open_clip-ft-Alien.json").write_text(json.dumps(lame))
    line = fails("--records", tmp_path, "--celeb-name", "Alien", "--unlearn-method", "ft")
    assert "is not a whole record: it lacks 'inputs'" in line


def test_a_report_needs_rows(fails, tmp_path):
    assert "has no rows of open_clip on Alien, Bento_Box" in fails("--result-dir", tmp_path, "--report")


def test_a_damaged_table_is_named(fails, tmp_path):
    (tmp_path / "lasting").mkdir()
    (tmp_path / "lasting/runs.parquet").write_bytes(b"PAR1, and no more")
    assert "is not a whole Parquet file" in fails("--result-dir", tmp_path, "--report")
