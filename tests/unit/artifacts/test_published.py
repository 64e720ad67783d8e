"""Files of the published code: gradients whose forget tensor is negated, and the table of UnlearnCanvas."""

import math
import re

import pandas as pd
import pytest
import tiny
import torch

from slug.artifacts import published, records
from slug.core import gradients, losses
from slug.errors import SlugError

TABLE = "Unlearn Name,Step Size,UA,IRA,CRA\nNoto,0.1,20,90,80\nNoto,0.2,95,85,70\nBlob,0.3,90,81,72\n"


@pytest.fixture(scope="module")
def made(tiny_clip):
    """(parameters, gradient of 8 pairs, gradient of 4 of them)."""
    clip = tiny.load(tiny_clip)
    every, few = (gradients.compute(clip, tiny.pairs(n), losses.cosine_embedding)[0] for n in (8, 4))
    return clip.parameters, every, few


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_is_found_by_a_few_pairs(made, sign):
    _, every, few = made
    found, negated = published.ascending({n: sign * g for n, g in every.items()}, few)
    assert tiny.same_tensors(found, {n: g.clone() for n, g in every.items()}) and negated == (sign < 0)


def test_gradients_of_other_pairs_are_refused(made):
    _, every, few = made
    g = torch.Generator().manual_seed(0)
    with pytest.raises(SlugError, match="check that model and forget set"):
        published.ascending({n: torch.randn(t.shape, generator=g) for n, t in every.items()}, few)


def test_the_whole_gradient_comes_before_partial_ones(tmp_path):
    names = ("train_grads_samples_100.pt", "train_grads_samples_1000.pt", "train_grads_samples_200.pt")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert published.gradient_file(tmp_path, "train").name == "train_grads_samples_1000.pt"
    assert [p.name for p in published.sample_files(tmp_path, "train")] == [names[0], names[2], names[1]]
    for name in ("train_grads_final.pt", "train_grads.pt"):
        (tmp_path / name).write_bytes(b"")
        assert published.gradient_file(tmp_path, "train").name == name
    with pytest.raises(SlugError, match=r"holds no forget_grads\.pt"):
        published.gradient_file(tmp_path, "forget")


def test_gradients_are_read_in_the_models_order_without_what_distributed_training_adds(made, tmp_path):
    parameters, every, _ = made
    torch.save({f"module.{n}": g.half() for n, g in reversed(every.items())}, tmp_path / "x.pt")
    found = published.gradient(tmp_path / "x.pt", parameters)
    assert list(found) == list(parameters) and all(g.dtype == torch.float32 for g in found.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.pop("visual.proj"), "has no gradient of visual.proj"),
        (lambda g: g.update({"visual.proj": torch.ones(2, 3)}), r"the shape \(2, 3\) instead of"),
        (lambda g: g.update({"visual.proj": g["visual.proj"] * torch.nan}), "holds NaN"),
    ],
)
def test_gradients_of_another_model_are_refused(made, tmp_path, change, said):
    parameters, every, _ = made
    grads = dict(every)
    change(grads)
    torch.save(grads, tmp_path / "x.pt")
    with pytest.raises(SlugError, match=said):
        published.gradient(tmp_path / "x.pt", parameters)


FRACTIONS = "Unlearn Name,Step Size,UA,IRA,CRA\nNoto,0.1,0.2,0.9,0.8\nNoto,0.2,0.95,0.85,0.7\nBlob,0.3,0.9,0.81,0.72\n"


@pytest.mark.parametrize("text", [TABLE, FRACTIONS, TABLE.replace("UA,", " UA ,").replace("95,", "95%,")])
def test_the_table_of_unlearncanvas_is_read_in_fractions(tmp_path, text):
    (tmp_path / "style.csv").write_text(text)
    frame = published.canvas_table(tmp_path / "style.csv")
    assert list(frame["UA"]) == [0.2, 0.95, 0.9] and list(frame["Step Size"]) == [0.1, 0.2, 0.3]
    assert list(published.canvas_table(tmp_path / "style.csv", recognised=True)["UA"]) == pytest.approx([0.8, 0.05, 0.1])


@pytest.mark.parametrize(
    ("text", "said"), [(TABLE.replace("IRA", "ira"), "no column 'IRA'"), (TABLE.replace("85", "x"), "not a number")]
)
def test_another_table_is_refused(tmp_path, text, said):
    (tmp_path / "style.csv").write_text(text)
    with pytest.raises(SlugError, match=said):
        published.canvas_table(tmp_path / "style.csv")


# As strict as a reader can be: every figure is a number of digits and a point.
NUMBER = r"(-?\d+(?:\.\d+)?)"
STRICT = re.compile(
    rf"iter: (\d+), (?:ratio: {NUMBER}, )?fgt_acc@1: {NUMBER}, fgt_acc@5: {NUMBER}, celeba100@1: {NUMBER}, "
    rf"celeba100@5: {NUMBER}, test_acc@1: {NUMBER}, test_acc@5: {NUMBER}, MIA: {NUMBER}±{NUMBER}"
)
COLUMNS = "forget_acc1 forget_acc5 identities_acc1 identities_acc5 objects_acc1 objects_acc5 mia_mean mia_std".split()
SCORED = dict(zip(COLUMNS, (0.25, 0.5, 0.75, 0.875, 0.5, 0.625, 61.25, 2.5), strict=True))
LINE = "iter: 3, fgt_acc@1: 0.2500, fgt_acc@5: 0.5000, celeba100@1: 0.7500, celeba100@5: 0.8750, test_acc@1: 0.5000, "


@pytest.mark.parametrize("step", [0, 3.5, 1e-7, 1.23456e12])
@pytest.mark.parametrize("missing", [(), ("identities_acc1", "mia_mean", "mia_std")])
def test_every_line_of_ours_is_numbers_only_and_is_read_back(tmp_path, step, missing):
    row = SCORED | dict.fromkeys(missing, math.nan) | {"step": float(step)}
    line = records.log_line(4, row)
    assert STRICT.fullmatch(line) and "nan" not in line
    (tmp_path / "x.txt").write_text(line, encoding="utf-8")
    (found,) = records.parse_log(tmp_path / "x.txt")
    assert found["ratio"] == pytest.approx(step, rel=1e-5)
    assert [c for c in COLUMNS if math.isnan(found[c])] == [c for c in COLUMNS if c in missing]


@pytest.mark.parametrize("around", ["{}", "2024-05-01 10:00:00 | INFO | {}", "{}s", "epoch 1\r 50%|## |\r{}\r\nend"])
def test_published_comparison_logs_are_read_without_ratio_and_with_mia_in_percent(tmp_path, around):
    line = f"{LINE}test_acc@5: 0.6250, MIA: 6125.00±250.00, time: 3.2"
    (tmp_path / "x.txt").write_text(around.format(line), encoding="utf-8")
    (found,) = records.parse_log(tmp_path / "x.txt")
    assert {c: found[c] for c in COLUMNS} == SCORED and math.isnan(found["ratio"]) and found["time"] == 3.2


@pytest.mark.parametrize("cut", ["iter: 2, fgt_a", f"{LINE}test_acc@5: 0.6.2, MIA: 6125.00±250.00", f"{LINE}MIA: 1±2"])
def test_a_damaged_line_is_refused(tmp_path, cut):
    (tmp_path / "x.txt").write_text(f"iter\n{cut}\n", encoding="utf-8")
    with pytest.raises(SlugError, match="line 2 is not in the log format"):
        records.parse_log(tmp_path / "x.txt")


def test_the_analysis_reads_both_forms_and_the_table_of_unlearncanvas(tmp_path, capsys, monkeypatch):
    row = SCORED | {"forget_acc1": 0.0, "step": 2.0}
    (tmp_path / "ours.txt").write_text(records.log_line(0, SCORED | {"step": 0.0}) + "\n" + records.log_line(1, row))
    theirs = f"{LINE}test_acc@5: 0.6250, MIA: 6125.00±250.00, time: 3.2"
    (tmp_path / "theirs.txt").write_text(f"{theirs.replace('iter: 3', 'iter: 0')}\n{theirs}\n", encoding="utf-8")
    (tmp_path / "style.csv").write_text(TABLE)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path), "--out", str(tmp_path / "out.csv"), "--max-forget", "0.3"])
    tiny.script("analyze_performance").main()
    said = capsys.readouterr().out
    assert "style.csv: 2 concepts, means in %: UA 92.50, IRA 83.00, CRA 71.00" in said
    table = pd.read_csv(tmp_path / "out.csv").set_index("log")
    assert table.loc["ours", "first zero: iter"] == 1 and math.isnan(table.loc["theirs", "first zero: iter"])
    assert list(table["best: iter"]) == [1, 3]
