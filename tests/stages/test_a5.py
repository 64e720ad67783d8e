"""a5_unlearn_multi.py: several names at once, against model folders that carry the deltas."""

import pandas as pd
import pytest
import tiny
import torch
from tiny_run import NAMES

from slug import models
from slug.artifacts import deltas
from slug.data.names import plain_name
from slug.data.splits import validation_mask
from slug.evaluation.clip_tasks import Evaluation
from slug.experiments.setup import task_sets
from slug.schema import REVERTED
from slug.settings import Data, Run


@pytest.fixture(scope="module")
def together(done, tmp_path_factory):
    """(folder, its table) of a run of a5 on both names, with a README to fill."""
    out = tmp_path_factory.mktemp("together")
    (out / "README.md").write_text("<!-- multi -->\n<!-- /multi -->\n")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    flags = ["--out", out / "multi", "--part", "mixture", "--readme", out / "README.md", "--joint"]
    tiny.run("a5_unlearn_multi", "--celeb-name", *NAMES, *flags, *done.model, *done.evaluation, *done.out)
    torch.set_num_threads(threads)
    return out, pd.read_csv(out / "multi/mixture/table.csv")


def of_folder(done, folder):
    """({name: ranks of its report pictures}, {task: ranks of the pictures of no name}) of an edited model folder, judged
    anew."""
    clip = models.load(f"local-dir:{folder}")
    data = Data(celeb_name=NAMES, val_data=done.evaluation[1], imagenet_val=done.evaluation[3], imagenet_share=1.0)
    sets = task_sets(Run(workers=0, result_dir=str(done.results)), data, clip.transform)
    evaluation = Evaluation(clip, sets)
    own, rest = {}, {}
    for target in map(evaluation.target, NAMES):  # an identity and an object
        split = ~validation_mask(evaluation.tasks[target.task].pictures, 0)
        for found, rows in (
            ((own, target.name), evaluation.rows(target.task, split, label=target.label)),
            ((rest, target.task), evaluation.rows(target.task, split, without=target.label)),
        ):
            found[0][found[1]] = evaluation.ranks(target.task, rows)
    return own, rest


def paths_of(done):
    return [next((done.results / "clip").glob(f"*-{n}.delta.safetensors")) for n in NAMES]


def edited_folder(done, paths, out):
    return deltas.apply(paths, tiny.ROOT / done.model[1].removeprefix("local-dir:"), out)


def share(rank):
    return pytest.approx(float((rank < 1).float().mean()), abs=1e-5)


def test_several_names_are_forgotten_together(done, together, tmp_path):
    """a5's figures are those of a model folder that carries the deltas, judged anew: all of them, with one taken out again,
    and those of the joint search."""
    out, table = together
    ways = {"sum", "joint-3", "joint-2"}
    assert set(table["method"]) == ways | {f"{w}{REVERTED}" for w in ways} and set(table["count"]) == {2}
    edited = edited_folder(done, paths_of(done), tmp_path / "edited")
    assert set(deltas.of_folder(edited)) == {p.name for p in paths_of(done)}
    trimmed = [out / "multi/mixture/joint-2-2" / p.name for p in paths_of(done)]
    factors = table[table["method"] == "joint-2"].set_index("name")["factor"]
    for path, header in ((p, deltas.read(p)[1]) for p in trimmed):
        step = float(deltas.read(done.results / "clip" / path.name)[1]["step"])
        assert float(header["step"]) == pytest.approx(factors[header["name"]] * step, rel=1e-5)
    assert (
        "together with the edits of Bento Box: forget accuracy"
        in (edited_folder(done, trimmed, tmp_path / "joint") / "README.md").read_text()
    )
    for method, folder in (("sum", edited), ("joint-2", tmp_path / "joint")):
        own, rest = of_folder(done, folder)
        rows = table[table["method"] == method].set_index("name")
        for name, rank in own.items():
            assert (rows.loc[name, "n_forget"], rows.loc[name, "forget_acc1"]) == (len(rank), share(rank))
            assert 1 < rows.loc[name, "n_drawings"] <= len(rank)
        for task, rank in rest.items():
            assert (rows.loc["all", f"n_{task}"], rows.loc["all", f"{task}_acc1"]) == (len(rank), share(rank))
        assert rows.loc["all", "n_drawings"] == rows.loc[list(own), "n_drawings"].sum()
        assert rows.loc["all", "n_left_validation"] in (0, 1, 2)

    names = [plain_name(n) for n in NAMES]
    for way, paths, folder in (("sum", paths_of(done), edited), ("joint-2", trimmed, tmp_path / "joint")):
        for name, other, path in zip(names, names[::-1], paths, strict=True):
            own, _ = of_folder(done, deltas.revert(path, folder, tmp_path / f"{way}-{path.stem}"))
            row = table[(table["method"] == f"{way}{REVERTED}") & (table["name"] == name)].iloc[0]
            assert (row["n_forget"], row["forget_acc1"]) == (len(own[name]), share(own[name]))
            assert row["forget_low"] <= row["forget_acc1"] <= row["forget_upper"]
            assert row["forget_change"] == pytest.approx(row["forget_acc1"] - row["forget_before"], abs=1e-5)
            assert row["forget_change_low"] <= row["forget_change"] <= row["forget_change_high"]
            assert (row["n_others"], row["others_acc1"]) == (len(own[other]), share(own[other]))
    back, source = deltas.revert(paths_of(done), edited, tmp_path / "back"), done.model[1].removeprefix("local-dir:")
    weights = "open_clip_model.safetensors"
    assert (back / weights).read_bytes() == (tiny.ROOT / source / weights).read_bytes()


def test_a_mixture_has_a_matrix_a_task_and_a_block_of_the_readme(together):
    out, table = together
    plots_of = {p.name for p in (out / "multi/mixture").glob("*.png")}
    ways = [
        f"open_clip-cosine-{way}-2-{task}.png" for way in ("sum", "joint-3", "joint-2") for task in ("identities", "objects")
    ]
    assert plots_of == set(ways)
    text, block = (out / "multi/mixture/report.md").read_text(), (out / "README.md").read_text()
    counts = table[(table["method"] == "sum") & (table["name"] == "all")].iloc[0]
    assert f"| {counts['n_forget']:.0f} / {counts['n_drawings']:.0f} |" in text and text.strip() in block.replace(
        "](multi/mixture/", "]("
    )
    assert "**1 identity and 1 object, slug**" in block and f"](multi/mixture/{ways[0]})" in block
    assert all(f"| {plain_name(n)} | " in text for n in NAMES)
    assert not tiny.left_over(out)


def test_records_of_other_splits_are_refused(done, quick, monkeypatch, capfd):
    """The seed, and the share of the pictures, draw the splits: pictures that chose an edit would report it."""
    flags = ["--celeb-name", *NAMES, *done.model, *done.evaluation, *done.out]
    line = tiny.failure(monkeypatch, capfd, "a5_unlearn_multi", *flags, "--seed", 1)
    assert "made with --seed 0, this run has --seed 1" in line
    line = tiny.failure(monkeypatch, capfd, "a5_unlearn_multi", *flags, "--imagenet-share", 0.5)
    assert "made with --imagenet-share 1.0, this run has --imagenet-share 0.5" in line


def test_a_single_name_is_refused_where_several_are_meant(done, quick, monkeypatch, capfd):
    flags = [*done.model, *done.evaluation, *done.out]
    line = tiny.failure(monkeypatch, capfd, "a5_unlearn_multi", "--celeb-name", NAMES[0], *flags)
    assert "two names or more" in line
    line = tiny.failure(monkeypatch, capfd, "a5_unlearn_multi", "--celeb-name", NAMES[0], "Dragon", *flags)
    assert "delta not found" in line
