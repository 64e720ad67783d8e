"""--protocol paper in the pipeline's stages: the search of each layer is the published one, written plainly here."""

import json

import pandas as pd
import pytest
import tiny

from slug import protocols
from slug.artifacts import canvas_records
from slug.core import layers
from slug.evaluation import canvas_prompts
from slug.protocols import PAPER

STEM = "slug-style-Noto"
PAPERS = ["--protocol", "paper"]


@pytest.fixture(scope="module")
def paper(canvas_run, tmp_path_factory):
    """A finished run of b2 and b3 on Noto by the published protocol, and its report in out/."""
    run = canvas_run.another(tmp_path_factory.mktemp("paper"))
    run.common = [*run.common, *PAPERS]
    run.b1("Noto")
    stage, *flags = run.b2("--style", "Noto")
    for flag in ("--wanted", "--keep", "--evaluations"):  # the protocol's own
        i = flags.index(flag)
        del flags[i : i + 2]
    run.run(stage, *flags)
    run.run(*run.b3("--no-fid", "--out", run.results / "out"))
    return run


def published_steps(rows, first, ira):
    """The steps of a layer by the published loop, which reads UA and IRA of each from `rows`."""
    step, low, high, found = first, 0.0, 10 * first, []
    for row in rows:
        found.append(step)
        if row["UA"] == 1 and abs(row["IRA"] - ira) < 0.1:
            break
        low, high = (low, step) if row["UA"] == 1 else (step, high)
        low, high = (low, high) if row["UA"] < 1 else (found_low(found, rows), step)
        step = (low + high) / 2
    return found


def found_low(found, rows):
    """The latest step that did not forget, before the last one; 0 where there is none."""
    return next((s for s, r in reversed(list(zip(found, rows, strict=False))) if r["UA"] < 1), 0.0)


def test_each_layer_is_searched_as_published(paper):
    pipeline, rows = paper.load(), pd.read_csv(paper.steps(STEM))
    saved = next((paper.results / "grads").glob("Noto_*/forget_grads.pt"))
    clip, grads = pipeline.clip, tiny.torch.load(saved, weights_only=True)
    start, searched = rows.iloc[0], rows.iloc[1:]
    assert searched[["UA", "IRA", "CRA"]].notna().all(axis=None)  # every column of every step
    for layer, part in searched.groupby("layer", sort=False):
        group = clip.group(layer)
        first = layers.first_step([clip.parameters[n] for n in group], [grads[n] for n in group])
        wanted = published_steps(part.to_dict("records"), 4 * first, start["IRA"])
        assert list(part["step"]) == pytest.approx(wanted, rel=1e-5) and 1 <= len(part) <= 10
        assert len(part) == 10 or part["UA"].iloc[-1] == 1


def test_records_and_reports_say_the_protocol(paper):
    record = paper.record(STEM)
    assert record["protocol"] == "paper" and record["points"] == json.loads(json.dumps(protocols.values(PAPER, canvas=True)))
    settings = record["settings"]
    assert (settings["wanted"], settings["keep"], settings["evaluations"], settings["fronts"]) == (1.0, 0.0, 10, 1)
    assert "Protocol: **paper**" in (paper.results / "out/report.md").read_text()


def test_prompts_are_the_published_ones(paper):
    asked = canvas_prompts.read_requests(paper.prompts, PAPER.canvas_prompt)
    assert {r.prompt for r in asked if r.object == "bell"} == {"A bell in Noto style", "A bell in Blob Old style"}


def test_records_of_another_protocol_are_neither_reported_nor_replaced(paper, monkeypatch, capfd):
    other = [*paper.common[: -len(PAPERS)]]
    line = tiny.failure(monkeypatch, capfd, *paper.b3("--no-fid"), *other)
    assert "made by the protocol paper; give --protocol paper" in line
    line = tiny.failure(monkeypatch, capfd, *paper.b2("--style", "Noto"), *other)
    assert "made by the protocol paper, not ours" in line and "--result-dir" in line


def test_a_record_of_before_protocols_is_of_ours():
    assert canvas_records.protocol_of({"settings": {}}) == "ours"
