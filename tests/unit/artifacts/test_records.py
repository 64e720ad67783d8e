"""Step logs and JSON records of a CLIP, and when a record is valid."""

import math
import re

import hand_made
import pytest
import torch

from slug import files
from slug.artifacts import canvas_records, deltas, records
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
    record |= {"fronts": {"vision": [{"name": "l", "importance": 0.5, "alignment": -0.1}]}, "delta": "a.delta"}
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
        stem = canvas_records.file_stem(tag, "slug", "style", "Noto")
        record = {"method": "slug", "kind": "style", "name": "Noto", "chosen": [["x", 1.0]], "lora": None, "settings": {}}
        record |= {"pipeline": tag, "pipeline_hash": base, "prompts_hash": mark, "delta": f"{stem}.delta.safetensors"}
        record |= dict.fromkeys(("seconds", "peak_mem_mb", "params_share", "n_candidates", "delta_bytes"), 1)
        files.write_json(tmp_path / f"{stem}.json", record | {"winner_validation": {}, "original_validation": {}})
    return tmp_path


@pytest.mark.parametrize(("tag", "base"), [("x", "1"), ("x-y", "2")])
def test_records_of_a_pipeline_whose_name_goes_on_are_not_taken_for_its_own(pipelines, tag, base):
    (found,) = canvas_records.read_records(pipelines, tag, base, pipelines / "prompts.csv")
    assert found["pipeline"] == tag


def test_records_of_other_weights_are_refused(pipelines):
    with pytest.raises(SlugError, match="with other weights"):
        canvas_records.read_records(pipelines, "x", "2", pipelines / "prompts.csv")


def test_records_of_other_prompts_are_not_found(pipelines):
    (pipelines / "prompts.csv").write_text("others")
    with pytest.raises(SlugError, match="has no record of x with these prompts"):
        canvas_records.read_records(pipelines, "x", "1", pipelines / "prompts.csv")


@pytest.mark.parametrize(
    ("damage", "lacks"),
    [
        (lambda r: r.update(name=5), "lacks name"),
        (lambda r: r.update(chosen="x 1"), "lacks chosen"),
        (lambda r: r.update(chosen=[["x", "1"]]), "lacks chosen"),
        (lambda r: r.update(lora=[1]), "lacks lora"),
        (lambda r: r.update(lora={"folder": "../../x", "bytes": 1}), "no file name"),
        (lambda r: r.update(delta="/etc/x"), "no file name"),
    ],
)
def test_a_pipelines_record_that_is_not_whole_is_refused(pipelines, damage, lacks):
    path = pipelines / "x-slug-style-Noto.json"
    damage(record := files.read_json(path))
    files.write_json(path, record)
    with pytest.raises(SlugError, match=lacks):
        canvas_records.read_records(pipelines, "x", "1", pipelines / "prompts.csv")


def test_a_copy_of_a_pipelines_record_is_left_out_and_named(pipelines, capsys):
    (pipelines / "x-old.json").write_bytes((pipelines / "x-slug-style-Noto.json").read_bytes())
    assert len(canvas_records.read_records(pipelines, "x", "1", pipelines / "prompts.csv")) == 1
    assert "x-old.json is left out: its record is of x-slug-style-Noto.json" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- odd records

ODD = ["[]", "null", "5", '"text"', "[" * 100_000, "1" * 5000, "{", '{"delta": 5}', '{"delta": "../x"}']


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_json_is_no_valid_record(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert records.valid(tmp_path / "a.json", {}) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.update(splits=[1]),
        lambda r: r["splits"].update(test=5),
        lambda r: r["splits"].update(third={}),
        lambda r: r["splits"]["test"]["slug"].update(mia_mean="high"),
        lambda r: r["splits"]["test"]["slug"].update(n_forget=10**400),
        lambda r: r["splits"]["test"]["slug"].update(forget_upper=[0.1]),
        lambda r: r.update(step="1"),
        lambda r: r.update(seconds=None),
        lambda r: r.update(search_s={}),
        lambda r: r.update(settings=[]),
        lambda r: r.update(winner_validation=[]),
        lambda r: r.update(delta="../../payload"),
        lambda r: r.update(delta=5),
        lambda r: r.update(fronts=5, delta="a"),
        lambda r: r.update(fronts={"vision": [5]}, delta="a"),
        lambda r: r.update(fronts={}, delta="a", winner_validation={"step": 1}),
        lambda r: r.update(fronts={}, delta="a", settings={"trace": "0"}),
    ],
)
def test_a_record_with_odd_entries_is_refused_in_one_line(record, tmp_path, damage):
    files.write_json(tmp_path / records.record_file(record), record)
    assert records.read_all(tmp_path)
    damage(record)
    files.write_json(tmp_path / records.record_file(record), record)
    with pytest.raises(SlugError):
        records.read_all(tmp_path)


def test_a_copy_of_a_record_is_left_out_and_named(record, tmp_path, capsys):
    for file in (records.record_file(record), "m-a-old.json", "copy of m-a.json"):
        files.write_json(tmp_path / file, record)
    assert len(records.read_all(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "m-a-old.json is left out: its record is of m-a.json" in said and said.count("left out") == 2


# ---------------------------------------------------------------------------------------------------- two sets of weights


class Named:
    """As much of a Clip as its label."""

    label = "m"


@pytest.mark.parametrize(
    ("found", "label"),
    [({}, "m"), ({"model_hash": "0123456789"}, "m"), ({"model_hash": "other"}, "m-01234567"), ({"model": "m-b"}, "m")],
)
def test_results_of_other_weights_are_never_replaced(record, tmp_path, found, label):
    files.write_json(tmp_path / "m-a.json", record | {"model_hash": "0123456789"} | found if found else record)
    assert records.own_label(tmp_path, Named(), "0123456789") == label


def test_an_earlier_record_tells_its_weights_by_its_delta(record, clip, tmp_path):
    kept, name = clip.label, next(n for n in clip.parameters if n.endswith("visual.proj") or "visual_projection" in n)
    change = {name: torch.ones_like(clip.parameters[name])}
    deltas.save(tmp_path / "a.delta", clip, change, name="a", layer=name, step=1.0, metrics={})
    files.write_json(tmp_path / f"{kept}-a.json", record | {"model": kept, "delta": "a.delta"})
    assert records.own_label(tmp_path, clip, "0123456789") == kept
    clip.parameters[name].data.mul_(1.5)
    assert records.own_label(tmp_path, clip, "0123456789") == f"{kept}-01234567"


def test_a_record_of_other_weights_is_not_replaced(tmp_path):
    path = tmp_path / "a.json"
    for text in ("[]", "{}", '{"vlm_hash": "1"}'):  # damaged, of an earlier version, its own
        path.write_text(text)
        records.check_weights(path, "vlm_hash", "1")
    with pytest.raises(SlugError, match=r"a\.json is of other weights .* give another --result-dir, or --force"):
        records.check_weights(path, "vlm_hash", "2")


# ---------------------------------------------------------------------------------------------------- nothing forgotten


@pytest.mark.parametrize(
    ("known", "forgotten", "said"),
    [
        ({"validation": (3, 9), "test": (1, 9)}, True, ""),
        ({"validation": (3, 9), "test": (1, 9)}, False, r"not forgotten: no candidate met the rule .* \(the rule\)"),
        ({"validation": (0, 9), "test": (1, 8)}, True, "the unedited model recognises none of the 9 validation pictures$"),
        ({"validation": (0, 9), "test": (0, 8)}, False, "none of the 9 validation pictures and none of the 8 test pictures"),
    ],
)
def test_what_was_not_forgotten_is_said(known, forgotten, said):
    found = records.caveat(known, forgotten, "the rule")
    assert re.search(said, found) and bool(found) is bool(said)


def test_the_last_line_counts_what_was_not_forgotten(record):
    assert records.ending([record]) == ""
    said = records.ending([record, record | {"name": "b", "caveat": "not forgotten: ..."}])
    assert said == "note: 1 of 2 edits did not forget anything: b (slug)"


# ------------------------------------------------------------------------------------------------------- published logs

PUBLISHED = (
    "iter: 0, fgt_acc@1: 0.7305, fgt_acc@5: 0.9222, celeba100@1: 0.6138, celeba100@5: 0.8233, test_acc@1: 0.6012, "
    "test_acc@5: 0.8552, MIA: 72.81±1.23, time: 3.2"
)


@pytest.mark.parametrize(
    "text",
    [
        PUBLISHED,
        f"{PUBLISHED}s",
        f"2024-05-01 10:00:00 | INFO | {PUBLISHED}",
        f"INFO:root:{PUBLISHED}\r\n",
        f"\r 50%|##   |\r{PUBLISHED}",
        f"loading model\ntraining, iter: 5 of 10\n{PUBLISHED}\ndone",
        PUBLISHED.replace("72.81±1.23", "nan±nan"),
        PUBLISHED.replace("72.81±1.23", "72.81±1.23%"),
        PUBLISHED.replace("iter: 0,", "iter: 0, ratio: 0.5,"),
    ],
)
def test_logs_as_published_are_read(tmp_path, text):
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    (row,) = records.parse_log(tmp_path / "x.txt")
    assert (row["iter"], row["forget_acc1"], row["objects_acc5"], row["time"]) == (0, 0.7305, 0.8552, 3.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{PUBLISHED}\niter: 2, ratio: 0.5, fgt_a", "line 2 is not in the log format"),
        (PUBLISHED.replace("±", "+-"), "line 1 is not"),
        (PUBLISHED.replace("0.7305", "many"), "line 1 is not"),
        (PUBLISHED.replace("0.7305", "73.05"), "line 1 has an accuracy above 1"),
    ],
)
def test_a_bad_line_of_a_published_log_is_named(tmp_path, text, said):
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    with pytest.raises(SlugError, match=said):
        records.parse_log(tmp_path / "x.txt")
