"""The benchmark: the plan of its frozen protocol, the records that count, and what stands for both encoders."""

import json
import shlex
from dataclasses import replace

import hand_made
import pytest

from demo import draw_names
from slug import cli, files
from slug.errors import SlugError
from slug.experiments import benchmark
from slug.settings import Benchmark, Compare, Forget, Run

SAID = {
    "version": 7,
    "frozen": True,
    "names": {"test": ["Old Woman", "b"], "few": ["b"], "quick": ["c"]},
    "models": [
        {"seed": 0, "folder": "data/models/mini-clip", "command": "train 0"},
        {"seed": 1, "folder": "data/models/absent", "command": "train 1"},
    ],
    "gold": [],
    "rule": {"max_forget": 0.02, "sigmas": 3.5, "select_pictures": 500},
    "methods": {"searched": ["slug_w", "slug"], "closed": ["ssd"]},
    "settings": {"ssd": {"selection": [3.0, 30.0]}},
    "quick": {"folder": "quick", "model": 0, "splits": "first", "names": ["quick"], "methods": ["searched"]},
    "runs": [
        {"folder": "seed-0", "model": 0, "splits": "first", "names": ["test", "few"], "methods": ["searched", "closed"]},
        {
            "folder": "swapped",
            "model": 0,
            "splits": "exchanged",
            "names": ["few"],
            "methods": ["searched"],
            "rule": {"sigmas": 0},
        },
        {"folder": "seed-1", "model": 1, "splits": "first", "names": ["test"], "methods": ["searched"]},
    ],
}


@pytest.fixture
def settings(tmp_path):
    """The flags, with a protocol of their own in protocol.json."""
    (tmp_path / "protocol.json").write_text(json.dumps(SAID))
    return Benchmark(run=Run(result_dir=str(tmp_path / "out")), frozen=str(tmp_path / "protocol.json"))


def stage(line, kind):
    """The settings that a line of the plan gives its stage."""
    words = shlex.split(line)
    return cli.parse("x", kind, words[2:])


def test_the_plan_is_made_of_lines_that_the_stages_take(settings):
    lines = list(benchmark.plan(settings))
    assert lines[0] == "# names: Old_Woman b"
    first = [line for line in lines if "/seed-0/" in line and "a2_unlearn_slug" in line]
    found = [stage(line, Forget) for line in first]
    assert [(s.unlearn_method, s.search.encoder) for s in found] == [
        (m, e) for m in ("slug", "slug_w") for e in ("vision", "language")
    ]
    assert all(s.data.celeb_name == ("Old_Woman", "b") and s.data.select_pictures == 500 for s in found)
    assert all(s.frozen_rules == {"frozen": files.file_hash(settings.frozen)} for s in found)
    assert all(not s.data.swap_splits and s.rule.sigmas == 3.5 and s.data.imagenet_share == 1 for s in found)
    (ssd,) = [stage(line, Compare) for line in lines if "a3_unlearn_compare" in line]
    assert ssd.unlearn_method == ("ssd",) and ssd.selection == (3.0, 30.0) and ssd.model.batch_size == 32


def test_a_run_may_have_other_splits_and_rules(settings):
    found = [stage(line, Forget) for line in benchmark.plan(settings) if "/swapped/" in line and "a2_unlearn_slug" in line]
    assert len(found) == 4 and all(s.data.swap_splits and s.rule.sigmas == 0 and s.data.celeb_name == ("b",) for s in found)


def test_a_model_that_is_not_there_is_named_with_the_command_that_makes_it(settings):
    (line,) = [line for line in benchmark.plan(settings) if "seed-1" in line]
    assert line.startswith("#") and "data/models/absent is missing, made by: train 1" in line


def test_quick_is_one_run(settings):
    lines = list(benchmark.plan(replace(settings, quick=True)))
    assert lines[0] == "# names: c" and all("/quick" in line for line in lines[1:])


def test_test_names_wait_until_the_rules_are_frozen(settings):
    files.write_json(settings.frozen, SAID | {"frozen": False})
    first, *_ = benchmark.plan(settings)
    assert first.startswith("# draft: ") and first.endswith("wait until they are frozen; give --quick")
    with pytest.raises(SlugError, match=r"protocol\.json are a draft, .*; give --quick"):
        benchmark.assemble(settings)
    assert next(iter(benchmark.plan(replace(settings, quick=True)))).startswith("# names")


def test_the_committed_protocol_names_what_was_drawn():
    said = benchmark.read("data/emoji/protocol.json").said
    lists = {which: draw_names.listed(which) for which in ("forget", "study", "test", "gold_A", "gold_B")}
    names = said["names"]
    assert names["test"] == lists["test"]
    assert names["development"] == [*lists["forget"], *lists["study"], *draw_names.DEVELOPMENT]
    assert set(names["quick"]) <= set(names["development"]) and not set(names["test"]) & set(names["development"])
    assert [g["without"] for g in said["gold"]] == [lists["gold_A"], lists["gold_B"]]
    gold = set(lists["gold_A"] + lists["gold_B"])
    assert len(gold) == 32 and names["trained"] == [n for n in names["test"] if n in gold] and len(names["trained"]) == 16


@pytest.mark.parametrize("part", ["version", "rule", "runs", "settings", "frozen"])
def test_a_protocol_without_a_part_is_refused(settings, part):
    files.write_json(settings.frozen, {k: v for k, v in SAID.items() if k != part})
    with pytest.raises(SlugError, match=f"protocol.json has no '{part}'; take it from the repository"):
        benchmark.read(settings.frozen)


def test_a_run_without_a_model_is_refused(settings):
    files.write_json(settings.frozen, SAID | {"quick": {k: v for k, v in SAID["quick"].items() if k != "model"}})
    with pytest.raises(SlugError, match="does not say its model"):
        benchmark.read(settings.frozen)


# -------------------------------------------------------------------------------------------------------------- records


def write(settings, place, record, **change):
    """A record of a run in its place."""
    record = record | {"frozen": files.file_hash(settings.frozen)} | change
    files.write_json(files.resolve(settings.run.result_dir) / "seed-0" / place / "clip" / f"{record['name']}.json", record)
    return record


def slug_record(forgotten, retained, margin=-0.5, name="a"):
    record = next(r for r in hand_made.clip_records() if r["method"] == "slug" and r["name"] == name)
    row = {"forget_acc1": 0.0 if forgotten else 0.5, "identities_acc1": retained, "objects_acc1": retained, "margin": margin}
    return record | {"forgotten": forgotten, "winner_validation": row | {"step": 1.0}}


@pytest.mark.parametrize(
    ("vision", "language", "wanted"),
    [
        ((True, 0.7), (True, 0.8), "language"),
        ((True, 0.8), (True, 0.7), "vision"),
        ((True, 0.1), (False, 0.9), "vision"),
        ((False, 0.9), (True, 0.1), "language"),
        ((False, None), (False, None), "language"),
    ],
)
def test_of_both_encoders_the_one_that_the_rule_prefers_stands_for_any_tower(settings, vision, language, wanted):
    for encoder, scores in (("vision", vision), ("language", language)):
        write(settings, f"slug-{encoder}", slug_record(*scores), layer=encoder)
    found, left_out = benchmark.records(settings)
    (best,) = [r for r in found if r["tower"] == "any"]
    assert best["layer"] == wanted and best["n_candidates"] == 40 and best["search_s"] == 16 and not left_out
    assert {r["tower"] for r in found} == {"vision", "language", "any"} and all(r["model_seed"] == 0 for r in found)


def test_records_of_other_rules_and_odd_files_are_counted_and_left_out(settings):
    write(settings, "slug-vision", slug_record(True, 0.5), frozen="another")
    write(settings, "ssd", slug_record(True, 0.5), method="ssd")
    place = files.resolve(settings.run.result_dir) / "seed-0" / "ssd" / "clip"
    (place / "odd.json").write_text("[]")
    found, left_out = benchmark.records(settings)
    assert [r["method"] for r in found] == ["ssd"] and left_out == {"of other frozen rules": 1, "no record": 1}


def test_without_records_the_script_is_named(settings):
    with pytest.raises(SlugError, match=r"has no record of .*; run scripts/run_benchmark_unlearning\.sh"):
        benchmark.assemble(settings)
