"""b3_eval_uncanvas.py: tables, FID, candidates and sheets, against pictures that are made and judged anew."""

import contextlib
import itertools
import json
import shutil

import pandas as pd
import pytest
import tiny
import tiny_canvas as canvas

from slug import schema
from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.data.images import decode
from slug.evaluation import canvas_classifiers, canvas_prompts, fid, unlearncanvas
from slug.evaluation.canvas_prompts import Concept
from slug.models import diffusion


@pytest.fixture
def table(canvas_run):
    return pd.read_csv(canvas_run.results / "uncanvas/table.csv")


# ------------------------------------------------------------------------------------------------------------- tables


def test_the_table_has_a_row_for_every_state_of_every_concept(table):
    rows = set(itertools.product(("original", "slug", "slug_lora"), ("Noto", "palm tree"))) | {("uce", "Noto")}
    assert list(table.columns) == [*schema.CANVAS_COLUMNS, "caveat"]  # of an edit that did not forget
    assert set(zip(table["method"], table["name"], strict=True)) == rows


def test_the_table_holds_what_the_test_pictures_say(canvas_run, tiny_canvas, table):
    asked = canvas_run.asked("test")
    classifiers = canvas_classifiers.load_classifiers(tiny_canvas / "classifiers")
    folders = canvas_run.results.glob("uncanvas/pictures/pipeline-slug-style-Noto-*")
    (pictures,) = (p for p in folders if "-lora-" not in p.name and "-fid-" not in p.name)
    images = diffusion.read_pictures(sorted(pictures.iterdir()))
    assert len(images) == len(asked) == 12
    right = canvas_classifiers.correct(asked, classifiers.logits(images), classifiers.labels)
    found = unlearncanvas.scores(Concept("style", "Noto"), asked, right)
    row = table[(table["method"] == "slug") & (table["name"] == "Noto")].iloc[0]
    assert tuple(row[["UA", "IRA", "CRA"]]) == pytest.approx(tuple(found), abs=1e-5)


@pytest.mark.parametrize("file", ["style", "class"])
def test_published_columns_have_a_row_for_each_concept(canvas_run, file):
    published = pd.read_csv(canvas_run.results / f"uncanvas/csv/{file}.csv")
    assert list(published.columns) == ["Unlearn Name", "Step Size", "UA", "IRA", "CRA"] and len(published) == 1


def test_there_is_a_sheet_for_each_record_and_a_plot_of_candidates(canvas_run):
    assert len(list(canvas_run.results.glob("uncanvas/sheet-*.png"))) == 3
    assert {p.suffix for p in canvas_run.results.glob("uncanvas/tradeoff.*")} == {".pdf", ".png"}


def test_the_candidates_are_those_of_the_records(canvas_run):
    found = pd.read_csv(canvas_run.results / "uncanvas/candidates.csv")
    columns = ["layer", "step", "UA", "IRA", "CRA"]
    for stem in ("slug-style-Noto", "slug-object-palm_tree", "uce-style-Noto"):
        method, kind, name = stem.replace("_", " ").split("-")
        mine = found[(found["method"] == method) & (found["kind"] == kind) & (found["name"] == name)]
        steps = pd.read_csv(canvas_run.steps(stem))
        pd.testing.assert_frame_equal(mine[columns].reset_index(drop=True), steps[columns], rtol=1e-5)


def test_settings_are_the_records_and_their_seeds(canvas_run):
    settings = json.loads((canvas_run.results / "uncanvas/settings.json").read_text())
    (record,) = (r for r in settings["records"] if r["method"] == "uce")
    seeds = pd.read_csv(canvas_run.steps("uce-style-Noto"))["seeds"].iloc[0]
    assert settings["common"] | record == canvas_run.record("uce-style-Noto") | {"seeds": seeds}


def test_rounds_count_what_their_first_layer_took(canvas_run, tmp_path):
    """The candidates of a method are all that were judged for it, and its memory the most that it ever held."""
    run = canvas_run.another(tmp_path)
    run.run(*run.b2("--style", "Noto", "--method", "slug_rounds", "--rounds", 2))
    run.run(*run.b3("--no-fid"))
    table = pd.read_csv(tmp_path / "uncanvas/table.csv").set_index("method")
    one, two = (run.record(f"{m}-style-Noto") for m in ("slug", "slug_rounds"))
    assert table.loc["slug", "n_candidates"] == one["n_candidates"] > 0
    assert table.loc["slug_rounds", "n_candidates"] == one["n_candidates"] + two["n_candidates"]
    assert table.loc["slug_rounds", "peak_mem_mb"] >= table.loc["slug", "peak_mem_mb"]
    text = (tmp_path / "uncanvas/report.md").read_text()
    assert "without what SLUG takes of the retain set once for all of them: slug " in text
    assert "FID was left out (--no-fid, --judge clip)." in text


# ---------------------------------------------------------------------------------------------------------------- FID


def test_without_enough_real_pictures_there_is_no_fid(canvas_run, table):
    assert table["FID"].isna().all()
    text = (canvas_run.results / "uncanvas/report.md").read_text()
    assert "1000 different pictures a side, and the reference has 9 of" in text


@pytest.fixture(scope="module")
def with_fid(canvas_run, tmp_path_factory):
    """Folder of a report with FID of 9 pictures a side."""
    out = tmp_path_factory.mktemp("with-fid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "FEWEST", 9)
        canvas_run.run(*canvas_run.b3("--out", out))
    return out


def test_fid_is_that_of_as_many_pictures_of_the_same_prompts_and_seeds(canvas_run, tiny_canvas, with_fid):
    table = pd.read_csv(with_fid / "table.csv").set_index(["method", "name"])
    dealt = fid.deal(canvas_run.asked("test"), [Concept("style", "Noto")], 12, 60_000)[:9]  # 9 in the reference
    wanted = [r for _, r in dealt]
    assert sum(r in canvas_prompts.read_requests(canvas_run.prompts) for r in wanted) == 6  # the others are FID's own
    real = decode([str(p) for p in fid.reference(canvas_run.canvas, wanted, 9)], fid.resize(16))[0]
    classifiers, pipe = canvas_classifiers.load_classifiers(tiny_canvas / "classifiers"), canvas_run.load()
    for method in ("original", "slug", "uce"):
        edit = Edit() if method == "original" else Edit(deltas.of_model(pipe, canvas_run.delta(f"{method}-style-Noto")))
        with edit.applied(pipe):
            images = pipe.generate([r.prompt for r in wanted], [r.seed for r in wanted])
        found = fid.frechet(classifiers.features(images), classifiers.features(real))
        assert table.loc[(method, "Noto"), "FID"] == pytest.approx(found, rel=1e-2)


def test_fid_is_one_figure_for_each_method(with_fid):
    table = pd.read_csv(with_fid / "table.csv").set_index(["method", "name"])
    assert table["FID"].nunique() == 3 and table.loc[("slug", "palm tree"), "FID"] == table.loc[("slug", "Noto"), "FID"]
    assert table.loc[("slug_lora", "Noto"), "FID"] != table.loc[("slug", "Noto"), "FID"]
    assert "of 9 different pictures a side" in (with_fid / "report.md").read_text()


def test_a_folder_for_committing_has_the_prompts(canvas_run, with_fid):
    assert (with_fid / "prompts.csv").read_bytes() == canvas_run.prompts.read_bytes()


# ----------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_made_once_and_by_parts(canvas_run, tmp_path, monkeypatch):
    run = canvas_run.another(tmp_path)
    for part in ("sd", "uncanvas"):
        shutil.copytree(canvas_run.results / part, tmp_path / part)
    pictures = tmp_path / "uncanvas/pictures"
    before = {p: p.stat().st_mtime_ns for p in pictures.rglob("*.png")}
    gone = next(pictures.glob("*-original-*"))
    shutil.rmtree(gone)
    run.run(*run.b3("--part", 2, 2))  # the original is of the first part
    assert not gone.exists()
    run.run(*run.b3("--part", 1, 2))
    after = {p: p.stat().st_mtime_ns for p in pictures.rglob("*.png")}
    assert set(after) == set(before) and {p for p in before if before[p] != after[p]} == set(gone.iterdir())
    monkeypatch.setattr(diffusion.Diffusion, "_run", None)  # no picture is made
    run.run(*run.b3())


def test_pictures_that_are_nan_are_counted_and_not_scored(canvas_run, tmp_path, monkeypatch, capsys):
    run = canvas_run.another(tmp_path)
    shutil.copytree(canvas_run.results / "sd", tmp_path / "sd")
    seed = next(r.seed for r in run.asked("test") if r.style == "Noto")
    lost = [r.seed == seed for r in run.asked("test")]
    canvas.break_pictures(monkeypatch, seed)
    run.run(*run.b3("--no-fid"))
    table, whole = (pd.read_csv(r.results / "uncanvas/table.csv") for r in (run, canvas_run))
    assert set(table["n_black"]) == {sum(lost)} and set(whole["n_black"]) == {0}
    assert set(table["n_images"]) == {len(lost) - sum(lost)} and set(whole["n_images"]) == {len(lost)}
    assert "pictures, which are black all over" in capsys.readouterr().out
    assert "are in no figure: " in (tmp_path / "uncanvas/report.md").read_text()


def test_missing_records_name_the_stage(tiny_canvas, tmp_path, monkeypatch, capfd):
    run = canvas.Run(tiny_canvas, tmp_path)
    run.prepare()
    assert "b2_unlearn_sd.py" in tiny.failure(monkeypatch, capfd, *run.b3(), *run.common)


def test_records_of_other_prompts_are_not_taken(canvas_run, tmp_path, monkeypatch, capfd):
    (tmp_path / "other.csv").write_text(canvas_run.prompts.read_text().replace(",1000", ",2000"))
    given = canvas_run.b3("--prompts", tmp_path / "other.csv")
    line = tiny.failure(monkeypatch, capfd, *given, *canvas_run.common)
    assert "no record of pipeline with these prompts" in line


# -------------------------------------------------------------------------------------------------------- CLIP as judge


@pytest.fixture(scope="module")
def by_clip(tiny_canvas, tmp_path_factory):
    """A run on a name that no classifier knows, from the forget set on, with the unedited CLIP as the judge."""
    run = canvas.Run(tiny_canvas, tmp_path_factory.mktemp("by-clip"))
    run.run("a0_create_prompts_uncanvas", "--names", *canvas.OBJECTS, "--test-seeds", 0, 1, "--out", run.prompts)
    images = ["--tar-dir", run.tars, "--image-dir", run.folder / "pictures", "--count", 6]
    run.run("b0_generate_forget_set", *run.pipeline, *images, "--object", "bell")
    run.b1("bell")
    run.judged = ["--prompts", run.prompts, "--classifiers", run.folder / "none"]
    run.run(*run.b2("--object", "bell", "--select", "clip", "--evaluations", 1, "--fronts", 1))
    run.run(*run.b3("--judge", "clip", "--reference", run.folder / "none"))
    return run


def test_names_without_classifiers_are_judged_by_the_clip(by_clip):
    table = pd.read_csv(by_clip.results / "uncanvas/table.csv").set_index("method")
    assert set(table["name"]) == {"bell"} and table[["CRA", "FID"]].isna().all(axis=None)
    pipe, asked = by_clip.load(), by_clip.asked("test")
    judge = canvas_classifiers.ClipClassifiers(pipe.clip, {"style": [], "object": ["bell", "key", "palm tree"]})
    edit = Edit(deltas.of_model(pipe, by_clip.delta("slug-object-bell")))
    for method, context in (("original", contextlib.nullcontext()), ("slug", edit.applied(pipe))):
        with context:
            images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
        right = canvas_classifiers.correct(asked, judge.logits(images), judge.labels)
        found = unlearncanvas.scores(Concept("object", "bell"), asked, right)
        assert tuple(table.loc[method, ["UA", "IRA"]]) == pytest.approx((found.UA, found.IRA), abs=1e-5)


def test_the_report_says_that_the_clip_judged(by_clip):
    text = (by_clip.results / "uncanvas/report.md").read_text()
    assert "zero-shot among bell, key, palm tree; 2 pictures of each" in text and "nan" not in text
    assert (by_clip.results / "uncanvas/sheet-pipeline-slug-object-bell.png").is_file()
