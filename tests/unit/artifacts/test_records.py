"""Step logs and JSON records of a CLIP, and when a record is valid."""

import math

import hand_made
import pytest

from slug import files
from slug.artifacts import canvas_records, records
from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.errors import SlugError

COLUMNS = "forget_acc1 forget_acc5 identities_acc1 identities_acc5 objects_acc1 objects_acc5 mia_mean mia_std".split()
FIGURES = dict(zip(COLUMNS, (0.25, 0.5, 0.75, 0.875, math.nan, math.nan, 61.25, 2.5), strict=True))
STEP = Candidate(Edit({}, "", 3), FIGURES, False, 0.0, math.nan, None)


def test_logs_are_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text(
        f"# a comment\n{records.log_line(0, STEP.row())}, time: 0.0\n{records.log_line(1, STEP.row())}\n", encoding="utf-8"
    )
    first, second = records.parse_log(path)
    assert first["time"] == 0 and math.isnan(second["time"]) and (first["iter"], second["iter"]) == (0, 1)
    same = {"ratio": 3, "forget_acc1": 0.25, "identities_acc5": 0.875, "mia_mean": 61.25, "mia_std": 2.5}
    assert all(first[k] == v == second[k] for k, v in same.items()) and math.isnan(first["objects_acc1"])


def test_a_line_that_is_not_in_the_format_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("iter: 1, ratio: 3, nothing\n")
    with pytest.raises(SlugError, match="line 1 is not in the log format"):
        records.parse_log(path)


def test_a_layers_log_begins_with_the_convention_and_the_unedited_model():
    lines = records.step_log(STEP, [STEP], "visual.proj").splitlines()
    assert lines[:2] == ["# visual.proj", records.CONVENTION] and [x[:7] for x in lines[2:]] == ["iter: 0", "iter: 1"]


def test_files_are_named_by_model_method_and_name():
    record = {"model": "a/b", "name": "Elon Musk", "method": "slug_w"}
    assert records.record_file(record) == "a-b-Elon_Musk.json"
    assert records.steps_file(record | {"method": "ga"}) == "a-b-ga-Elon_Musk-steps.csv"


@pytest.fixture
def record():
    """A whole record."""
    return hand_made.clip_records()[0]


@pytest.fixture
def valid(record, tmp_path):
    """(path, settings) of a valid record whose delta is there."""
    record |= {"settings": {"seed": 0}, "inputs": "x", "delta": "a.delta"}
    (tmp_path / "a.delta").write_text("")
    files.write_json(tmp_path / "a.json", record)
    return tmp_path / "a.json", {"settings": {"seed": 0}, "inputs": "x"}


def test_a_record_is_valid_for_its_own_settings(valid):
    assert records.valid(*valid)["name"] == "a"


@pytest.mark.parametrize("change", [{"settings": {"seed": 1}}, {"inputs": "y"}, {"versions": {}}])
def test_any_other_setting_or_input_makes_a_record_stale(valid, change):
    path, settings = valid
    assert records.valid(path, settings | change) is None


def test_a_record_without_its_delta_is_stale(valid):
    path, settings = valid
    (path.parent / "a.delta").unlink()
    assert records.valid(path, settings) is None


def test_no_record_or_a_damaged_one_is_not_valid(tmp_path):
    (tmp_path / "x.json").write_text("{")
    assert records.valid(tmp_path / "x.json", {}) is None and records.valid(tmp_path / "none.json", {}) is None


def test_a_record_in_one_line(record):
    assert records.one_line(record) == (
        "a, slug: x step 1, test split: FA@1 90.0% -> 0.0% (at most 7.2%), identities -1.00, objects -1.00 points, "
        "delta 1 kB = 50.00% of the model"
    )


def test_a_whole_record_is_accepted(record, tmp_path):
    assert records.check_whole(tmp_path, record) is record


@pytest.mark.parametrize(
    ("damage", "lacks"),
    [
        (lambda r: r.pop("splits"), "its splits"),
        (lambda r: r.pop("layer"), "layer"),
        (lambda r: r.update(kind="thing"), "kind"),
        (lambda r: r.update(splits=[]), "the figures of original, validation split"),
        (lambda r: r["splits"]["test"].pop("slug"), "the figures of slug, test split"),
        (lambda r: r["splits"]["test"]["original"].pop("n_forget"), "n_forget of original, test split"),
        (lambda r: r["splits"]["test"]["slug"].pop("objects_change_low"), "objects_change_low of slug, test split"),
    ],
)
def test_what_a_record_lacks_is_named(record, tmp_path, damage, lacks):
    damage(record)
    with pytest.raises(SlugError, match=f"it lacks {lacks}; delete it"):
        records.check_whole(tmp_path, record)


def test_records_of_other_splits_are_refused(record):
    record["settings"] = {"seed": 0, "imagenet_share": 1.0}
    records.check_splits(record, 0, 1.0)
    with pytest.raises(SlugError, match="made with --seed 0, this run has --seed 1"):
        records.check_splits(record, 1, 1.0)
    with pytest.raises(SlugError, match=r"made with --imagenet-share 1\.0, this run has --imagenet-share 0\.5"):
        records.check_splits(record, 0, 0.5)


def test_all_records_of_a_model_are_read_by_kind_and_name(tmp_path):
    for r in hand_made.clip_records():
        files.write_json(tmp_path / records.record_file(r), r)
    files.write_json(tmp_path / "settings.json", {"a": 1})
    files.write_json(tmp_path / "n-a.json", hand_made.clip_records()[0] | {"model": "n"})
    assert [r["name"] for r in records.read_all(tmp_path, "m")] == ["a", "a", "b", "b", "c", "c"]
    assert len(records.read_all(tmp_path)) == 7


def test_fronts_and_winners_are_listed(record, tmp_path):
    record["fronts"] = {"vision": [{"name": "l", "importance": 0.5, "alignment": -0.1}]}
    files.write_json(tmp_path / records.record_file(record), record)
    records.write_important_layers(tmp_path, "m")
    text = (tmp_path / "m-important_layers.txt").read_text()
    assert text == "a: winner x, step 1\n  vision l: importance 0.5, alignment -0.1000\n"


@pytest.fixture
def pipelines(tmp_path):
    """Records of two pipelines, the tag of one beginning as the other's."""
    (tmp_path / "prompts.csv").write_text("prompts")
    mark = files.file_hash(tmp_path / "prompts.csv")
    for tag, base in (("x", "1"), ("x-y", "2")):
        record = {"pipeline": tag, "pipeline_hash": base, "prompts_hash": mark, "name": "Noto"}
        files.write_json(tmp_path / f"{canvas_records.file_stem(tag, 'slug', 'style', 'Noto')}.json", record)
    return tmp_path


@pytest.mark.parametrize(("tag", "base"), [("x", "1"), ("x-y", "2")])
def test_records_of_a_pipeline_whose_name_goes_on_are_not_taken_for_its_own(pipelines, tag, base):
    (found,) = canvas_records.read_records(pipelines, tag, base, pipelines / "prompts.csv")
    assert found["pipeline"] == tag


def test_records_of_other_weights_are_refused(pipelines):
    with pytest.raises(SlugError, match="of other weights"):
        canvas_records.read_records(pipelines, "x", "2", pipelines / "prompts.csv")


def test_records_of_other_prompts_are_not_found(pipelines):
    (pipelines / "prompts.csv").write_text("others")
    with pytest.raises(SlugError, match="has no record of x with these prompts"):
        canvas_records.read_records(pipelines, "x", "1", pipelines / "prompts.csv")
