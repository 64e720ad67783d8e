"""Which edits are on record, whether they can be made again, and rows beside those of the unedited model."""

import json
import types

import pytest

from slug.data.names import read_aliases
from slug.errors import SlugError
from slug.experiments import durability
from slug.experiments.durability import Edits, OnRecord, joined, on_record
from slug.settings import Data, Durability, Model, Run

FIGURES = {"forget_acc1": 0.5, "identities_acc1": 0.9, "objects_acc1": 0.9, "n_forget": 10}
CHANGES = {f"{task}_change{end}": 0.0 for task in ("identities", "objects") for end in ("", "_low", "_high")}


def record(method="ft", name="Alien", **more):
    states = {"original": FIGURES, method: FIGURES | CHANGES}
    about = {"method": method, "name": name, "kind": "identity", "model": "m", "layer": "lr 0.001", "step": 2, "seed": 0}
    numbers = dict.fromkeys(
        ("seconds", "search_s", "params_touched", "params_share", "peak_mem_mb", "n_candidates", "delta_bytes"), 1
    )
    made = {"settings": {"seed": 0, "imagenet_share": 1.0}, "inputs": "x", "setting": 1e-3, "inside_grid": True}
    made["winner_validation"] = {"layer": "lr 0.001", "step": 2} | FIGURES
    return about | numbers | made | {"splits": {"validation": states, "test": states}} | more


@pytest.fixture
def write(tmp_path):
    """A function that writes a record of model m."""

    def write(found):
        (tmp_path / f"m-{found['method']}-{found['name']}.json").write_text(json.dumps(found))

    return write


def asked(folder, *names, seed=0, **more):
    groups = {"run": Run(seed=seed), "model": Model(model="m"), "data": Data(celeb_name=names)}
    return Durability(**groups, records=str(folder), **more)


# ------------------------------------------------------------------------------------------------------------ records


def test_all_methods_on_record_are_tested_in_the_order_of_tables(write, tmp_path):
    for method in ("ssd", "ft", "ga"):
        write(record(method))
    write(record("ft", "Owl"))
    found = on_record(asked(tmp_path, "Alien"), "m")
    assert list(found.found) == [("Alien", "ft"), ("Alien", "ga"), ("Alien", "ssd")] and found.names == ["Alien", "Owl"]


def test_names_are_found_whatever_their_case(write, tmp_path):
    write(record())
    assert list(on_record(asked(tmp_path, "alien"), "m").found) == [("alien", "ft")]


def test_only_the_methods_asked_for_are_tested(write, tmp_path):
    write(record("ft"))
    write(record("ga"))
    assert list(on_record(asked(tmp_path, "Alien", unlearn_method=("ga",)), "m").found) == [("Alien", "ga")]


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["Dragon"], {}, "no record of any method for Dragon"),
        (["Alien"], {"unlearn_method": ("ft", "ssd")}, "no record of ssd for Alien"),
        (["Alien"], {"seed": 1}, "record of ft for Alien was made with --seed 0, this run has --seed 1"),
    ],
)
def test_what_is_not_on_record_is_named(write, tmp_path, names, more, said):
    write(record())
    with pytest.raises(SlugError, match=said):
        on_record(asked(tmp_path, *names, **more), "m")


def test_a_folder_without_records_names_the_script(tmp_path):
    with pytest.raises(SlugError, match=r"no records of m in .*run_clip_slug\.sh"):
        on_record(asked(tmp_path, "Alien"), "m")


# ------------------------------------------------------------------------------------------------------------- aliases


def test_aliases_are_read_by_name_and_empty_ones_left_out(tmp_path):
    for number, text in enumerate(("name,alias\nalien,extraterrestrial\nBento_Box,\n", "name,alias\nAlien, visitor \n")):
        (tmp_path / f"{number}.csv").write_text(text)
    found = read_aliases([str(tmp_path / "0.csv"), str(tmp_path / "1.csv")])
    assert found == {"alien": ["extraterrestrial", "visitor"]}


def test_a_file_without_the_column_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,other\na,b\n")
    with pytest.raises(SlugError, match="it needs the columns name and alias"):
        read_aliases([str(tmp_path / "a.csv")])


# --------------------------------------------------------------------------------------------------------------- edits


@pytest.fixture
def edits(tmp_path):
    """Edits of records in a folder, without a model."""
    world = types.SimpleNamespace(gradients=types.SimpleNamespace(names=["Alien"]))
    return Edits(world, OnRecord({}, tmp_path, ["Alien"]))


def test_a_baselines_edit_is_told_apart_by_what_it_is_trained_from(edits):
    first = edits.fingerprint(record())
    assert edits.fingerprint(record(layer="other", seconds=9)) == first
    for changed in ({"setting": 1e-4}, {"step": 1}, {"settings": {"seed": 1}}, {"inputs": "y"}):
        assert edits.fingerprint(record(**changed)) != first


def test_slugs_edit_is_told_apart_by_its_delta(edits, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    first = edits.fingerprint(record("slug", delta="a.safetensors"))
    (tmp_path / "a.safetensors").write_bytes(b"two")
    assert edits.fingerprint(record("slug", delta="a.safetensors")) != first


def test_a_missing_delta_is_named(edits):
    with pytest.raises(SlugError, match="delta not found"):
        edits.fingerprint(record("slug", delta="a.safetensors"))


def test_a_record_that_does_not_say_what_it_was_made_with_is_named(edits):
    lame = {k: v for k, v in record().items() if k != "inputs"}
    with pytest.raises(SlugError, match=r"m-ft-Alien\.json is not a whole record: it lacks 'inputs'"):
        edits.fingerprint(lame)


def test_a_record_of_other_data_cannot_be_made_again(edits):
    with pytest.raises(SlugError, match="record of ft for Alien was made with another model or other data"):
        edits.check("Alien", record(), "other inputs")


# ---------------------------------------------------------------------------------------------------------------- rows


def row(setting, value, **more):
    return {"setting": setting, "value": value, "low": value - 0.1, "high": value + 0.1, **more}


def test_rows_stand_beside_the_unedited_models_of_the_same_setting():
    found = joined([row("a", 0.1), row("b", 0.2)], [row("b", 0.8), row("a", 0.7)], {"name": "Alien"})
    beside = [(r["setting"], r["value"], r["original"], round(r["original_low"], 6), r["name"]) for r in found]
    assert beside == [("a", 0.1, 0.7, 0.6, "Alien"), ("b", 0.2, 0.8, 0.7, "Alien")]


def test_a_single_row_of_the_unedited_model_stands_for_all_settings():
    found = joined([row("2 pictures", 0.1), row("all", 0.2)], [row("as it is", 0.9, objects_acc1=0.5)], {})
    assert [(r["original"], r["original_objects"]) for r in found] == [(0.9, 0.5)] * 2
    assert "original_identities" not in found[0]


@pytest.mark.parametrize(("value", "noted"), [(0.5, False), (0.4, True)])
def test_an_edit_that_does_not_score_as_its_record_says_is_noted(capsys, value, noted):
    durability.compare_with_record(record(), value)
    said = capsys.readouterr()
    assert ("Alien, ft: forget accuracy 40.0%, its record says 50.0%" in said.out + said.err) is noted
