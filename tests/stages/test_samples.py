"""a1 --checkpoints and a4 --samples: gradients of the first pairs, and what is said of them."""

import json
import math

import pandas as pd
import pytest
import tiny
import torch

from slug.artifacts import published, sample_gradients
from slug.core import gradients, layers, losses
from slug.data.pairs import load_pairs, some
from slug.reports import samples

NAME, COUNTS = "Alien", (5, 18)
SIDES = {"forget": losses.cosine_embedding, "train": losses.contrastive}


@pytest.fixture(scope="module")
def sampled(done):
    """A run of a1 with --checkpoints, and its report in out/."""
    run = done.another("samples", link=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny.run("a1_compute_grad", *run.a1(), "--checkpoints", 18, 5, 100000)
    tiny.run("a4_report", "--samples", run.results / "grads", "--out", run.folder / "samples-out")
    yield run
    torch.set_num_threads(threads)


def folder(run):
    return run.results / "grads" / f"{NAME}_open_clip_local"


def read(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("count", COUNTS)
def test_a_partial_gradient_is_that_of_the_first_whole_batches(sampled, taught_clip, side, count):
    path = folder(sampled) / f"{side}_grads_samples_{count}.pt"
    about = json.loads(path.with_suffix(".json").read_text())
    clip = tiny.load(taught_clip)
    tar = sampled.folder / "tars" / f"{NAME}.tar" if side == "forget" else sampled.shards / "00000.tar"
    whole = json.loads((folder(sampled) / f"{side}_grads.json").read_text())
    found = load_pairs(tar, clip.transform)  # partial retain gradients serve all names, and no name is left out
    seen = math.ceil(count / whole["batch_size"]) * whole["batch_size"]
    seen = min(seen, len(found.captions))
    if side == "train" and seen > whole["batch_size"]:
        seen -= seen % whole["batch_size"]
    wanted, _ = gradients.compute(clip, some(found, range(seen)), SIDES[side], batch_size=whole["batch_size"])
    assert (about["samples"], about["pairs"]) == (count, seen)
    for name, value in wanted.items():
        assert torch.allclose(read(path)[name], value, rtol=1e-4, atol=1e-6 * value.abs().max().item()), name


def test_retain_gradients_lie_once_and_a_count_that_is_no_fewer_is_left_out(sampled):
    path = folder(sampled) / "train_grads_samples_5.pt"
    assert path.is_symlink() and path.resolve().parent.name.startswith("retain_")
    assert not list(folder(sampled).glob("*_samples_100000.pt"))
    assert [p.name for p in published.sample_files(folder(sampled), "forget")] == [
        f"forget_grads_samples_{n}.pt" for n in COUNTS
    ]


def test_cosines_are_those_of_the_files(sampled):
    rows = pd.read_csv(folder(sampled) / "samples.csv")
    assert set(zip(rows["side"], rows["samples"], strict=True)) == {(s, n) for s in SIDES for n in COUNTS}
    for side in SIDES:
        path = (folder(sampled) / f"{side}_grads_samples_5.pt").resolve()
        partial, final = read(path), read(path.with_name(f"{side}_grads.pt"))
        mine = rows[(rows["side"] == side) & (rows["samples"] == 5)].set_index("layer")["cosine"]
        a, b = (torch.cat([g[n].flatten() for n in final]) for g in (partial, final))
        assert mine["all"] == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), abs=1e-4)
        one = torch.cosine_similarity(partial["visual.proj"].flatten(), final["visual.proj"].flatten(), dim=0).item()
        assert mine["visual.proj"] == pytest.approx(one, abs=1e-4) and len(mine) == 1 + len(final)


def test_fronts_are_those_of_the_files(sampled, taught_clip):
    rows = pd.read_csv(folder(sampled) / "samples-fronts.csv")
    assert set(rows["name"]) == {NAME} and set(rows["encoder"]) == {"vision", "language"}
    for count in (0, *COUNTS):
        end = f"_samples_{count}" if count else ""
        ranked = layers.figures(tiny.load(taught_clip), *(read(folder(sampled) / f"{s}_grads{end}.pt") for s in SIDES))
        wanted = {r.name for part in layers.fronts(ranked).values() for r in part}
        mine = rows[rows["samples"] == count]
        assert set(mine[mine["on_front"]]["layer"]) == wanted and len(mine) == len(ranked)


def test_valid_files_are_kept(sampled, monkeypatch, capfd):
    before = (folder(sampled) / "forget_grads_samples_5.pt").stat().st_mtime_ns
    monkeypatch.setattr(gradients, "_accumulate", None)
    tiny.run("a1_compute_grad", *sampled.a1(), "--checkpoints", *COUNTS)
    assert (folder(sampled) / "forget_grads_samples_5.pt").stat().st_mtime_ns == before


def test_the_report_has_both_figures_and_tables(sampled):
    out = sampled.folder / "samples-out"
    text = (out / "README.md").read_text()
    assert "How many pictures are enough?" in text and "Protocol: **ours**" in text and "forget gradient | 2 |" in text
    assert {p.name for p in out.iterdir()} == {"README.md", "cosines.csv", "fronts.csv"} | {
        f"{stem}.{end}" for stem in ("cosines", "fronts") for end in ("png", "pdf")
    }


def test_checkpoints_need_the_plain_gradient(done, monkeypatch, capfd):
    line = tiny.failure(monkeypatch, capfd, "a1_compute_grad", *done.a1(), "--unlearn-method", "ssd", "--checkpoints", 5)
    assert "add calc_grad to --unlearn-method" in line


def test_a_folder_without_checkpoints_is_refused(done, monkeypatch, capfd):
    assert "--checkpoints" in tiny.failure(monkeypatch, capfd, "a4_report", "--samples", done.results / "grads")


# ------------------------------------------------------------------------------------------------------------- figures


def curve(*values):
    return pd.DataFrame({"pairs": range(10, 10 * len(values) + 1, 10), "cosine": values})


@pytest.mark.parametrize(
    ("values", "wanted"),
    [((0.9, 0.96, 0.97), 20), ((0.96, 0.9, 0.97), 30), ((0.99, 0.99), 10), ((0.99, 0.9), math.nan)],
    ids=["passes", "falls back", "from the first", "never"],
)
def test_enough_is_from_where_it_stays_above(values, wanted):
    assert samples.enough(curve(*values), 0.95) == pytest.approx(wanted, nan_ok=True)


def test_overlap_counts_layers_of_the_final_front():
    rows = [("a", 0), ("b", 0), ("a", 8), ("c", 8)]
    frame = pd.DataFrame([{"name": "n", "encoder": "vision", "layer": k, "samples": n, "on_front": True} for k, n in rows])
    (row,) = samples.overlap(frame).to_dict("records")
    assert (row["kept"], row["new"]) == (0.5, 1)


def test_the_cosine_of_a_zero_gradient_is_zero():
    one, zero = {"x": torch.ones(2)}, {"x": torch.zeros(2)}
    assert sample_gradients.cosines(zero, one) == {"all": 0.0, "x": 0.0}
    assert sample_gradients.cosines(one, {"x": -torch.ones(2)}) == pytest.approx({"all": -1.0, "x": -1.0})
