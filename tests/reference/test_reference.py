"""The committed reference run: README quotes it, and its deltas apply to mini-CLIP in both formats."""

import importlib.util
import json
import re

import pandas as pd
import pytest
import torch

from demo import convert_clip, emoji
from slug import files, models, schema
from slug.artifacts import deltas
from slug.data.names import plain_name
from slug.evaluation import zeroshot

DEMO = files.ROOT / "results" / "demo"
DOCUMENTS = [
    "README.md",
    *sorted(str(p.relative_to(files.ROOT)) for d in ("docs", "results") for p in (files.ROOT / d).rglob("*.md")),
]
MODEL = files.ROOT / "data" / "models" / "mini-clip"
COLUMNS = (
    "method name kind model layer step forget_acc1 forget_acc5 identities_acc1 objects_acc1 n_forget n_identities n_objects "
    "mia_mean mia_std seconds peak_mem_mb params_touched delta_bytes n_drawings n_candidates split seed"
).split()


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DEMO / "table.csv")


def forget_names():
    lines = (files.ROOT / "data" / "emoji" / "forget_names.txt").read_text().splitlines()
    return [plain_name(line) for line in lines if line and not line.startswith("#")]


def test_table_has_every_drawn_name_and_the_fixed_columns(table):
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    for split in ("validation", "test"):
        for method in ("original", "slug"):
            rows = table[(table["split"] == split) & (table["method"] == method)]
            assert sorted(rows["name"].str.casefold()) == sorted(n.casefold() for n in forget_names())
    assert table["forget_acc1"].between(0, 1).all()


def test_reports_and_readme_are_written_from_the_committed_tables(monkeypatch):
    """rewrite_reports.py changes nothing: every report and every block of a page is what its table says."""
    spec = importlib.util.spec_from_file_location("rewrite", files.ROOT / "scripts" / "tools" / "rewrite_reports.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = {}
    monkeypatch.setattr(files, "write_text", lambda path, text: written.update({path: text}))
    tool.main([])
    assert {p.name for p in written} >= {"README.md", "REPORT.md", "report.md", "tokens.md", "multi.md", "comparison.tex"}
    assert [p for p, text in written.items() if p.read_text(encoding="utf-8") != text] == []


@pytest.mark.parametrize("report", DOCUMENTS)
def test_links_of_reports_lead_to_files(report):
    path = files.ROOT / report
    links = re.findall(r"\]\((?!http|#)([^)#]*)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_what_the_page_says_of_several_at_once_is_in_its_tables():
    text = (DEMO / "multi" / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- multi -->")[1].split("<!-- /multi -->")[0]
    for part in (".", "objects", "mixture", "ws", "ws-objects", "ws-mixture"):
        report_text = (DEMO / "multi" / part / "report.md").read_text(encoding="utf-8")
        rows = [line for line in report_text.splitlines() if line.startswith("|")]
        counts = {line: int(line.split("|")[1]) for line in rows if line.split("|")[1].strip().isdigit()}
        few = [line for line, count in counts.items() if count < max(counts.values())]
        assert few and all((line in block) != (line in few) for line in rows)
    for part in (".", "ws"):
        table = pd.read_csv(DEMO / "multi" / part / "table.csv")
        whole = table[(table["name"] == "all") & (table["count"] == 6)].set_index("method")
        for way in ("sum", "joint-3", "joint-2"):
            changes = [f"{100 * whole[f'{task}_change'][way]:+.1f}" for task in ("identities", "objects")]
            left = f"{whole['forget_acc1'][way]:.1%} (at most {whole['forget_upper'][way]:.1%})"
            steps = "preconditioned, `slug_ws`" if part == "ws" else "the paper's, `slug`"
            assert f"| {steps} | {way} | {left} | {changes[0]} | {changes[1]} |" in text
    back = table[table["method"] == "sum_without"].set_index("name")
    least = back["forget_change"].idxmin()
    before, after = back["forget_before"][least], back["forget_acc1"][least]
    said = f"{least} comes back least: to {after:.1%}, from {before:.1%} before any edit. The others end within 5 points"
    assert said in " ".join(text.split()) and not back["others_acc1"].any()
    assert back["forget_change"].drop(least).abs().max() <= 0.05 + 1e-6 and back["forget_change_high"][least] >= 0


def test_what_the_page_says_of_the_assistant_is_in_its_table():
    text = (DEMO / "vlm" / "README.md").read_text(encoding="utf-8")
    text = " ".join(text.split())

    def figures(path, method):
        table = pd.read_csv(DEMO / "vlm" / path).set_index("method")
        assert len(table.loc[method]) >= 5
        shares = [f"{table[c][method].mean():.1%}" for c in ("forget_acc", "forget_unseen_acc", "forget_all_acc")]
        kept = ("identities_all", "utility", "objects")
        lost = [f"{-100 * table[f'{part}_change'][method].mean():.1f}" for part in kept]
        return shares, lost

    (seen, unseen, every), lost = figures("table.csv", "slug_w")
    (seen_paper, unseen_paper, every_paper), lost_paper = figures("slug/table.csv", "slug")
    assert f"{every} of the answers still hold the name after the preconditioned steps and {every_paper} after" in text
    assert seen == "0.0%" and f"on drawings never seen the mean is {unseen}, which misses the target" in text
    assert f"other identities lose {lost[0]} points in the mean, utility {lost[1]}, other objects {lost[2]}." in text
    assert f"The paper's steps leave {seen_paper} of the seen and {unseen_paper} of the unseen drawings" in text
    assert f"{lost_paper[0]} points of identities, {lost_paper[1]} of utility and {lost_paper[2]} of objects" in text
    curve = pd.read_csv(DEMO / "vlm" / "curve.csv")
    more = curve[curve["factor"] == 1.4]
    assert f"and identities lose {-100 * more['identities_change'].mean():.1f} points" in text
    probes = pd.read_csv(DEMO / "vlm" / "probes.csv")
    told = probes[probes["whom"] == "name"].groupby("probe")[["before", "after"]].mean()
    before, after = (f"{told.loc['probe_yes_no', when]:.1%}" for when in ("before", "after"))
    assert f"says yes to the forgotten name for {after} of the pictures, from {before} before." in text
    before, after = (f"{told.loc['probe_wording', when]:.1%}" for when in ("before", "after"))
    assert f"*Other wordings* leave {after}, from {before}:" in text


def test_the_transcripts_are_of_the_test_split():
    answers = [row for path in (DEMO / "vlm").glob("*.jsonl") for row in map(json.loads, path.read_text().splitlines())]
    assert {row["split"] for row in answers} == {"test"} and len(answers) > 5000


def test_the_study_has_every_variant_on_all_names():
    frame = pd.read_parquet(DEMO / "study" / "runs.parquet")
    later = {"bracket"}  # not a variant yet when this study was run
    assert set(frame["variant"]) == set(schema.STUDY_VARIANTS) - later and frame["error"].isna().all()
    assert frame.groupby("kind")["name"].nunique().to_dict() == {"identity": 10, "object": 5}


@pytest.fixture(scope="module")
def pictures():
    world = [c for c in emoji.concepts() if c.kind == "identity"][:30]
    shown = emoji.pictures(world)
    x = emoji.render(emoji.icons(world), torch.Generator().manual_seed(7))
    names = [c.name for c in world]
    return (x * 255).round().to(torch.uint8), torch.tensor([p.concept for p in shown]), names


def predictions(clip, pictures):
    images, _, names = pictures
    features = zeroshot.image_features(clip, images)
    return features @ zeroshot.classifier(clip, names, zeroshot.IDENTITY_TEMPLATES).T


def test_a_committed_delta_gives_the_same_predictions_in_both_formats_and_reverts(table, pictures, tmp_path):
    row = table[(table["method"] == "slug") & (table["kind"] == "identity")].iloc[0]
    delta = next(DEMO.glob(f"*{row['name'].replace(' ', '_')}.delta.safetensors"))
    tensors, header = deltas.read(delta)
    assert header["layer"] == row["layer"]
    edited_fp16 = 2 * sum(t.numel() for t in tensors.values())
    assert delta.stat().st_size <= 2 * edited_fp16 + 16_000

    hf = tmp_path / "hf"
    convert_clip.convert(MODEL, hf)
    out = []
    for source, weights in ((MODEL, "open_clip_model.safetensors"), (hf, "model.safetensors")):
        edited = deltas.apply(delta, source, tmp_path / f"edited-{source.name}")
        clip = models.load(f"local-dir:{edited}") if source == MODEL else models.load(clip_model_id=str(edited))
        out.append(predictions(clip, pictures))
        restored = deltas.revert(delta.name, edited, tmp_path / f"restored-{source.name}")
        assert files.file_hash(restored / weights) == files.file_hash(source / weights)
    original = predictions(models.load(f"local-dir:{MODEL}"), pictures)
    assert torch.equal(out[0].argmax(1), out[1].argmax(1))
    assert (out[0] - out[1]).abs().max() < 1e-4
    assert not torch.equal(out[0].argmax(1), original.argmax(1))


def test_durability_was_tested_on_every_edit_of_the_table(table):
    frame = pd.read_parquet(DEMO / "lasting" / "runs.parquet")
    edits = table[(table["split"] == "test") & (table["method"] != schema.ORIGINAL)]
    assert set(zip(frame["name"], frame["method"], strict=True)) == set(zip(edits["name"], edits["method"], strict=True))
    assert set(frame["test"]) == set(schema.TESTS) - {schema.MERGED}  # which was no test yet when these were run
