"""Every record, table, report and block of a page says by which protocol it was made."""

import json
import re
import shutil

import pandas as pd
import pytest
import tiny
from tiny_run import NAMES, rel

from slug.reports import plots, rules

BLOCKS = "results pictures comparison multi study lasting uncanvas uncanvas-multi vlm".split()
SAID = "Protocol: **ours**"


@pytest.fixture(scope="module")
def everything(done, canvas_run, assistant_run, tmp_path_factory):
    """Finished runs of all stages that write records or reports: (result folders, a page with all blocks)."""
    run = done.another("every-protocol")
    page = tmp_path_factory.mktemp("page") / "README.md"
    page.write_text("\n".join(f"<!-- {b} -->\n<!-- /{b} -->" for b in BLOCKS) + "\n")
    readme = ["--readme", page]
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n, f in vars(plots).items() if callable(f) and n[0] != "_"]:
            patch.setattr(plots, name, lambda *a, **k: None)
        shutil.copytree(done.results / "clip", run.results / "clip")  # of a2
        few = ["--lr", "1e-3", "--epochs", 1, "--grow", 0]
        tiny.run("a3_unlearn_compare", *run.a1(), *run.evaluation, "--unlearn-method", "ft", *few)
        tiny.run("a4_report", "--result-dir", rel(run.results), *readme)
        tiny.run("a5_unlearn_multi", *run.a1(), *run.evaluation, *readme)
        tiny.run("a6_study", *run.a6(), "--celeb-name", NAMES[0], "--variant", "standard")
        tiny.run("a4_report", "--study", rel(run.results), *readme)
        one = ["--celeb-name", NAMES[0], "--unlearn-method", "slug"]
        tiny.run("a7_lasting", *run.a7(), *one, *readme)
        canvas = canvas_run.another(tmp_path_factory.mktemp("canvas") / "results")
        canvas.run(*canvas.b2("--style", "Noto", "--object", "palm_tree", "--evaluations", 1))
        canvas.run(*canvas.b3("--no-fid", *readme))
        both = ["--style", "Noto", "--object", "palm_tree"]
        canvas.run("b5_unlearn_multi", *canvas.pipeline, *canvas.judged, *both, *readme)
    return {"clip": run.results, "sd": canvas.results, "vlm": assistant_run / "results"}, page


RECORDS = {"clip": ("clip", 4), "sd": ("sd", 2), "vlm": ("vlm", 1)}
TABLES = {
    "a4": ("clip", "clip/report/table.csv"),
    "a5": ("clip", "clip/multi/table.csv"),
    "a6": ("clip", "runs.parquet"),
    "a7": ("clip", "lasting/runs.parquet"),
    "b3": ("sd", "uncanvas/table.csv"),
    "b5": ("sd", "uncanvas/multi.csv"),
    "c2": ("vlm", "vlm/table.csv"),
}


@pytest.mark.parametrize("part", RECORDS)
def test_every_record_says_its_protocol(everything, part):
    folder, least = RECORDS[part]
    found = [json.loads(p.read_text()) for p in (everything[0][part] / folder).glob("*.json")]
    found = [r for r in found if "method" in r]
    assert len(found) >= least and {r.get("protocol") for r in found} == {"ours"} and all(r["points"] for r in found)


@pytest.mark.parametrize("stage", TABLES)
def test_every_table_says_its_protocol(everything, stage):
    part, file = TABLES[stage]
    path = everything[0][part] / file
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    assert rules.flags_of(frame, "protocol") == ["ours"]


def test_every_report_says_its_protocol(everything):
    found = {
        p.relative_to(f).as_posix(): p for f in everything[0].values() for p in f.rglob("*.md") if "-lora" not in str(p)
    }
    wanted = {"clip/report/report.md", "clip/multi/report.md", "REPORT.md", "lasting/REPORT.md"}
    assert wanted | {"uncanvas/report.md", "uncanvas/multi.md", "vlm/report.md"} <= set(found)
    assert [n for n, p in found.items() if SAID not in p.read_text()] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b not in ("pictures", "comparison", "vlm")])
def test_every_block_of_a_page_says_its_protocol(everything, block):
    text = re.search(rf"<!-- {block} -->(.*?)<!-- /{block} -->", everything[1].read_text(), re.S)[1]
    assert SAID in text


def test_a_table_of_before_protocols_is_of_ours_with_the_usual_limit():
    frame = pd.DataFrame({"name": ["x"]})
    assert rules.line(frame).startswith(SAID) and rules.max_forget(frame) == 0.02


@pytest.mark.parametrize("column", ["settings", "made_with"])
def test_flags_are_read_from_what_rows_say_of_their_run(column):
    key = {"settings": "flags", "made_with": "settings"}[column]
    frame = pd.DataFrame({column: [json.dumps({key: {"protocol": "paper", "max_forget": 0.05}})] * 2})
    assert [p.name for p in rules.protocols_of(frame)] == ["paper"] and rules.max_forget(frame) == 0.05
