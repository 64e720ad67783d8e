"""--protocol paper: every number is that of the published loop, written plainly in tests/published.py."""

import csv
import json
import re
import shutil

import pytest
import tiny
import tiny_run
import torch
from published import Published, reported

from slug import protocols
from slug.evaluation import membership
from slug.reports import plots

NAME = "Alien"
EPOCHS, LR = 3, 1e-3
SEEDS = range(2)  # of the membership test here; tests/unit/evaluation/test_membership.py has all ten
# In the tiny world this layer reaches FA@5 = 0, so the search bisects; the other one only doubles.
LAYERS = "transformer.resblocks.1.ln_1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"
FIGURE = re.compile(r"[\d.]+")


def write_many_names(world, out):
    """A copy of a world whose CelebA list has 60 more identities without pictures: among 4 names no FA@5 is ever 0."""
    shutil.copytree(world, out)
    path = out / "celeba" / "list_identity_celeba.txt"
    _, header, *rows = path.read_text().splitlines()
    rows += [f"{900000 + i}.jpg Person_{chr(65 + i % 26)}{chr(97 + i // 26)}" for i in range(60)]
    path.write_text("\n".join([str(len(rows)), header, *rows]) + "\n")
    return out


@pytest.fixture(scope="module")
def run(taught_clip, tiny_world, tmp_path_factory):
    """A finished run of a1, a2 and a3 by the published protocol. Only for reading."""
    folder = tmp_path_factory.mktemp("paper")
    world = write_many_names(tiny_world, folder / "world" / "demo")
    run = tiny_run.Run(world, taught_clip / "open_clip", folder)
    run.out = [*run.out, "--protocol", "paper"]
    run.evaluation += ["--imagenet-share", "0.5", "--mia-data", tiny_run.rel(world / "cc3m" / "00000.tar")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "SEEDS", SEEDS)
        for name in [n for n, f in vars(plots).items() if callable(f) and n[0] != "_"]:
            patch.setattr(plots, name, lambda *a, **k: None)
        tiny.run("a0_create_tar", *run.a0())
        tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "slug", "ssd")
        one = [*run.a1(), *run.evaluation, "--celeb-name", NAME]
        tiny.run("a2_unlearn_slug", *one)
        few = ["--lr", LR, "--epochs", EPOCHS, "--forget-epochs", EPOCHS]
        tiny.run("a3_unlearn_compare", *one, *few, "--unlearn-method", "ft", "ga", "gaft", "salun", "ssd")
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(run, taught_clip):
    """The published loop on the same files."""
    tars = run.folder / "tars" / f"{NAME}.tar", run.shards / "00000.tar", run.world / "cc3m" / "00000.tar"
    found = Published(taught_clip / "open_clip", run.world, NAME, *tars, share=0.5)
    found.seeds = SEEDS
    return found


@pytest.fixture(scope="module")
def gradients(plain):
    """{side: gradient} by the published loop."""
    return {"forget": plain.gradient(plain.forget, "cosine"), "train": plain.gradient(plain.retain_crops(), "contrastive")}


def record_of(run, method=""):
    """The record of SLUG, or of a baseline."""
    return json.loads((run.results / "clip" / f"open_clip-{method and method + '-'}{NAME}.json").read_text())


def same_lines(found, wanted):
    """Whether log lines agree: in form, and in every number up to its last digit."""
    forms = [[FIGURE.sub("0", line) for line in lines] for lines in (found, wanted)]
    numbers = [[[float(x) for x in FIGURE.findall(line)] for line in lines] for lines in (found, wanted)]
    assert forms[0] == forms[1]
    assert numbers[0] == [pytest.approx(line, rel=2e-5, abs=1.01e-4) for line in numbers[1]]
    return True


@pytest.mark.parametrize("side", ["forget", "train"])
@pytest.mark.parametrize("square", [False, True])
def test_gradients_and_importances_are_the_published_ones(run, plain, side, square):
    name = f"{side}_grads{'_importance' if square else ''}.pt"
    found = torch.load(run.results / "grads" / f"{NAME}_open_clip_local" / name, weights_only=True)
    pairs, kind = (plain.forget, "cosine") if side == "forget" else (plain.retain_crops(), "contrastive")
    wanted = plain.gradient(pairs, kind, square=square)
    assert found.keys() == wanted.keys()
    assert max(((found[n] - w).norm() / (w.norm() + 1e-9)).item() for n, w in wanted.items()) < 1e-4


def test_the_pareto_fronts_are_the_published_ones(run, plain, gradients):
    found, wanted = record_of(run)["fronts"], plain.fronts(gradients["forget"], gradients["train"])
    assert {e: {r["name"] for r in rows} for e, rows in found.items()} == {e: set(rows) for e, rows in wanted.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_number_of_a_search_is_the_published_one(run, plain, gradients, layer):
    log = run.results / "clip" / "steps" / f"open_clip-{NAME}-{layer}.txt"
    lines, _ = plain.search(layer, gradients["forget"])
    assert same_lines([x for x in log.read_text().splitlines() if not x.startswith("#")], lines) and len(lines) == 11


def test_layer_and_step_are_our_choice_among_the_published_steps(run, plain, gradients):
    record = record_of(run)
    with (run.results / "clip" / f"open_clip-{NAME}-steps.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    zero = [r for r in rows[1:] if float(r["forget_acc5"]) == 0]
    assert {r["layer"] for r in zero} == {LAYERS[0]} == {record["layer"]}  # the only one, so the deepest one
    _, steps = plain.search(LAYERS[0], gradients["forget"])
    best = max((s for s in steps if s[1][1] == 0), key=lambda s: (s[1][2] + s[1][4], -s[0]))
    assert record["step"] == pytest.approx(best[0], rel=1e-5)
    for split in ("validation", "test"):  # there is one split
        after = record["splits"][split]["slug"]
        columns = ("forget_acc1", "forget_acc5", "identities_acc1", "identities_acc5", "objects_acc1", "objects_acc5")
        assert [after[c] for c in (*columns, "mia_mean", "mia_std")] == pytest.approx(best[1], abs=1e-5)
        before = record["splits"][split]["original"]
        assert after["identities_change"] == pytest.approx(best[1][2] - before["identities_acc1"], abs=1e-6)


def epochs_of(method, plain, gradients):
    """The figures after each epoch of a baseline by the published loop."""
    if method == "ssd":
        pairs = (plain.forget, "cosine"), (plain.retain_crops(), "contrastive")
        return plain.dampened(*(plain.gradient(*p, square=True) for p in pairs))
    return plain.epochs(method, LR, EPOCHS, gradients["forget"])


@pytest.mark.parametrize("method", ["ft", "ga", "gaft", "salun", "ssd"])
def test_every_number_of_a_baseline_is_the_published_one(run, plain, gradients, method):
    (log,) = (run.results / "clip" / "compare").glob(f"*_open_clip_{NAME}_{method}_*.txt")
    epochs = epochs_of(method, plain, gradients)
    found = [x for x in log.read_text().splitlines() if not x.startswith("#")]
    assert all(re.search(r", time: [\d.]+$", line) for line in found)
    wanted = [plain.line(n, figures, mia=100) for n, figures in enumerate([plain.evaluate(), *epochs])]
    assert same_lines([line.rpartition(", time")[0] for line in found], wanted)
    assert record_of(run, method)["step"] == reported(epochs)


@pytest.mark.parametrize("method", ["", "ga"])
def test_every_record_carries_the_protocol_and_its_points(run, method):
    record = record_of(run, method)
    assert record["protocol"] == "paper" == record["settings"]["protocol"]
    assert record["points"] == json.loads(json.dumps(protocols.values(protocols.PAPER)))
