"""The stages end to end on the tiny world, from another working directory (traps 3, 4, 8, 9 and 10)."""

import argparse
import ast
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile

import pandas as pd
import pytest
import tiny
import torch
from safetensors import safe_open

from slug import files, models
from slug.artifacts import cards, deltas
from slug.core import gradients, layers, losses, preconditioning, selection
from slug.data import evaluation_sets
from slug.data.images import decode
from slug.data.names import Matcher, plain_name
from slug.data.pairs import Pairs, load_pairs, read_tar
from slug.data.splits import validation_mask
from slug.evaluation import clip_tasks, zeroshot
from slug.experiments import several
from slug.reports import plots

NAMES = ("Alien", "Bento_Box")
STAGES = sorted(p.stem for p in (tiny.ROOT / "src" / "clip").glob("*.py"))
LINE = (
    r"iter: (\d+), ratio: (\S+), fgt_acc@1: (\S+), fgt_acc@5: (\S+), celeba100@1: (\S+), celeba100@5: (\S+), "
    r"test_acc@1: (\S+), test_acc@5: (\S+), MIA: (\S+)±(\S+)"
)
PLOTS = [n for n, f in vars(plots).items() if callable(f) and n != "save"]
CHANGING = {"seconds", "gradient_s", "shared_s", "search_s", "peak_mem_mb"}


def rel(path):
    """A path relative to the repository's root, wherever the test runs."""
    return os.path.relpath(path, tiny.ROOT)


class Run:
    """Paths and flags of one run of all stages; every path is relative to the repository's root."""

    def __init__(self, world, model, folder, result="results"):
        self.world, self.folder, self.results = world, folder, folder / result
        self.model = ["--model", f"local-dir:{rel(model)}"]
        self.tars = ["--tar-dir", rel(folder / "tars")]
        self.train = ["--train-data", rel(world / "laion" / "laion400m" / "00000.tar")]
        self.evaluation = ["--val-data", rel(world / "celeba"), "--imagenet-val", rel(world / "ImageNet" / "val")]
        self.out = ["--result-dir", rel(self.results), "--workers", "0", "--device", "cpu"]

    def a0(self):
        images = ["--image-dir", rel(self.folder / "pictures"), "--known-names", rel(self.world / "names.txt")]
        return ["--name", *NAMES, "--laion-dir", rel(self.world / "laion" / "laion400m"), *self.tars, *images, *self.out]

    def a1(self):
        return ["--celeb-name", *NAMES, *self.tars, *self.train, *self.model, *self.out]

    def a2(self):
        return [*self.a1(), *self.evaluation, "--evaluations", "6"]

    def record(self, name):
        return json.loads(next((self.results / "clip").glob(f"*-{name}.json")).read_text())


@pytest.fixture(scope="module")
def done(taught_clip, tiny_world, tmp_path_factory):
    """A finished run of a0, a1 (two processes), a2 and a4, started in a folder that has nothing to do with it."""
    folder = tmp_path_factory.mktemp("run")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run = Run(tiny_world, taught_clip / "open_clip", folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def start(stage, arguments, launcher=()):
        command = [sys.executable, *launcher, str(tiny.ROOT / "src" / "clip" / f"{stage}.py"), *arguments]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr[-3000:]
        return found.stdout

    run.said = {
        "a0": start("a0_create_tar", run.a0()),
        "a1": start("a1_compute_grad", run.a1(), torchrun),
        "a2": start("a2_unlearn_slug", run.a2()),
        "a4": start("a4_report", ["--result-dir", rel(run.results)]),
    }
    assert list(elsewhere.iterdir()) == []
    return run


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """For stages that run in this process: another working directory, no plots, and one thread, as in `done`: the last bits
    of a float32 matrix product depend on the number of threads."""
    monkeypatch.chdir(tmp_path)
    for name in PLOTS:
        monkeypatch.setattr(plots, name, lambda *a, **k: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def another(done, result, *, link=True):
    """A run with a result folder of its own; `link` gives it the gradients of `done`."""
    run = Run(done.world, done.folder, done.folder, result)
    run.model = done.model
    run.results.mkdir()
    if link:
        (run.results / "grads").symlink_to(done.results / "grads")
    return run


def steps_csv(run, name):
    """The rows of {model}-{name}-steps.csv."""
    with next((run.results / "clip").glob(f"*-{name}-steps.csv")).open(newline="") as f:
        return list(csv.DictReader(f))


# ------------------------------------------------------------------------------------------------- trap 4: the flags


def settings_read(path):
    """The attributes of `args`, or of `self.args`, that a source file reads."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
    return {n.attr for n in nodes if "args" in (getattr(n.value, "id", ""), getattr(n.value, "attr", ""))}


@pytest.mark.parametrize("stage", STAGES)
def test_every_flag_is_declared_read_and_explained(stage, monkeypatch):
    """A stage reads no setting that it does not declare, and declares none, the shared ones apart, that nothing reads."""
    seen, parse = [], argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, *a: seen.append(self) or parse(self, *a))
    with_names = ("a1_compute_grad", "a2_unlearn_slug", "a3_unlearn_compare", "a5_unlearn_multi", "a6_study", "a7_lasting")
    needed = {"a0_create_tar": "--name"} | dict.fromkeys(with_names, "--celeb-name")
    tiny.stage(stage).parse_args([needed[stage], "x"] if stage in needed else [])
    path = tiny.ROOT / "src" / "clip" / f"{stage}.py"
    actions = [a for a in seen[0]._actions if a.dest != "help"]
    assert all(a.help for a in actions)
    declared, mine = {a.dest for a in actions}, settings_read(path)
    here = {flag.replace("-", "_") for flag in re.findall(r"""add_argument\(\s*"--([\w-]+)""", path.read_text())}
    assert mine <= declared | here, f"read but not declared: {mine - declared - here}"
    library = set().union(*(settings_read(p) for p in (tiny.ROOT / "src" / "slug").rglob("*.py")))
    assert here <= mine | library, f"declared but never read: {here - mine - library}"
    assert {"device", "seed", "workers", "precision", "result_dir"} <= declared


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        (
            "a1_compute_grad",
            "celeb-name forget-data train-data model pretrained batch-size workers precision unlearn-method",
        ),
        ("a2_unlearn_slug", "celeb-name forget-data train-data val-data imagenet-val model pretrained batch-size workers"),
        ("a3_unlearn_compare", "val-data imagenet-val unlearn-method lr wd epochs warmup"),
    ],
)
def test_the_flags_that_users_know_are_there(stage, flags):
    arguments = []
    shared = "celeb-name forget-data train-data model pretrained batch-size workers precision result-dir clip-model-id"
    for flag in [*flags.split(), *shared.split()]:
        method = "ssd" if stage == "a3_unlearn_compare" else "calc_grad"
        value = {"batch-size": "3", "workers": "1", "precision": "bf16", "unlearn-method": method, "lr": "1e-6", "wd": "0"}
        value = (value | {"epochs": "2", "warmup": "1"}).get(flag, "x")
        arguments += [f"--{flag}", value]
    args = vars(tiny.stage(stage).parse_args(arguments))
    assert args["result_dir"] == "x" and args["batch_size"] == 3 and args["celeb_name"] == ["x"]


# -------------------------------------------------------------------------------------------------------- a0 and a1


def test_a0_says_what_it_found_and_where(done):
    for name in NAMES:
        n = len(read_tar(done.folder / "tars" / f"{name}.tar"))
        assert n > 5 and re.search(rf"{name}: {n} pairs .*-> .*/{name}.tar", done.said["a0"])


def test_gradients_lie_where_users_look_for_them(done):
    retain = done.results / "grads" / "retain_open_clip_local" / "train_grads.pt"
    assert retain.is_file() and not retain.is_symlink()
    for name in NAMES:
        folder = done.results / "grads" / f"{name}_open_clip_local"
        assert {p.name for p in folder.iterdir()} == {f"{s}_grads.{k}" for s in ("forget", "train") for k in ("pt", "json")}
        assert (folder / "train_grads.pt").resolve() == retain.resolve()
        assert not os.path.isabs(os.readlink(folder / "train_grads.pt"))
        grads = torch.load(folder / "forget_grads.pt", weights_only=True)
        assert type(grads) is dict and all(t.dtype == torch.float32 for t in grads.values())
        record = json.loads((folder / "forget_grads.json").read_text())
        assert record["settings"]["seed"] == 0 and record["versions"]["torch"] and record["loss_name"] == "cosine_embedding"
        assert record["pairs"] == len(read_tar(done.folder / "tars" / f"{name}.tar"))


def test_one_process_gives_the_gradients_of_two_and_workers_change_nothing(done, quick, taught_clip):
    run = another(done, "one-process", link=False)
    tiny.run("a1_compute_grad", *run.a1(), "--workers", "2")
    for path in (done.results / "grads").rglob("*.pt"):
        two, one = (torch.load(p, weights_only=True) for p in (path, run.results / path.relative_to(done.results)))
        assert two.keys() == one.keys()
        for name, value in two.items():
            # torchrun gives each process one thread, and float32 matrix products depend on the number of threads
            assert torch.allclose(value, one[name], rtol=1e-6, atol=1e-6 * value.abs().max().item()), name
    found, wanted = (
        json.loads((r.results / "grads/Alien_open_clip_local/forget_grads.json").read_text()) for r in (run, done)
    )
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9) and found["pairs"] == wanted["pairs"]
    assert found["model"] == wanted["model"] and found["data"] == wanted["data"]


def test_two_processes_find_what_one_finds(done, tmp_path):
    """The search under torchrun: the same files, the same steps and winner, figures up to the last bits."""
    run = another(done, "two-processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tiny.ROOT / "src/clip/a2_unlearn_slug.py"), *run.a2(), "--celeb-name", "Alien"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.count("Alien, slug:") == 1
    files = [{p.name for p in (r.results / "clip").rglob("*") if "Alien" in p.name} for r in (run, done)]
    assert files[0] == files[1]
    for two, one in zip(steps_csv(run, "Alien"), steps_csv(done, "Alien"), strict=True):
        assert two.pop("layer") == one.pop("layer")
        del two["seconds"], one["seconds"]
        for key, value in one.items():
            assert float(two[key] or "nan") == pytest.approx(float(value or "nan"), rel=1e-5, abs=1e-5, nan_ok=True), key
    records = [r.record("Alien") for r in (run, done)]
    assert records[0]["layer"] == records[1]["layer"]
    assert records[0]["splits"]["test"]["slug"]["forget_acc1"] == records[1]["splits"]["test"]["slug"]["forget_acc1"]


def test_retain_gradient_is_of_unchanged_captions_without_any_forget_name(done, taught_clip):
    clip = tiny.load(taught_clip)
    kept = {}
    with tarfile.open(done.world / "laion" / "laion400m" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith((".jpg", ".txt")):
                kept.setdefault(member.name[:-4], []).append(tar.extractfile(member).read())
    everything = [(image, caption.decode()) for image, caption in kept.values()]
    chosen = [p for p in everything if not re.search(r"\b(alien|bento box)\b", p[1].lower().replace("-", " "))]
    images, rows = decode([image for image, _ in chosen], clip.transform)
    assert len(chosen) < len(everything)
    pairs = Pairs(images, [chosen[i][1] for i in rows], [], 0)
    wanted, _ = gradients.compute(clip, pairs, losses.contrastive, batch_size=16)
    found = torch.load(done.results / "grads" / "retain_open_clip_local" / "train_grads.pt", weights_only=True)
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6 * value.abs().max().item()), name


# ---------------------------------------------------------------------------------------------------------------- a2


@pytest.mark.parametrize("name", NAMES)
def test_a2_writes_what_users_look_for(done, name):
    folder = done.results / "clip"
    stems = [f"open_clip-pareto-vision-{name}", f"open_clip-pareto-language-{name}", f"open_clip-steps-{name}"]
    for stem in [*stems, f"open_clip-cosine-{name}"]:
        assert (folder / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    record = done.record(name)
    important = (folder / "open_clip-important_layers.txt").read_text()
    assert f"{record['name']}: winner {record['layer']}, step" in important
    assert tiny.left_over(done.folder) == []


@pytest.mark.parametrize("name", NAMES)
def test_a2_chooses_one_layer_of_a_front_by_the_rule(done, name):
    record, rows = done.record(name), steps_csv(done, name)
    assert record["layer"] in {r["name"] for front in record["fronts"].values() for r in front}
    assert record["n_candidates"] == len(rows) - 1 > 3 and rows[0]["layer"] == "" and float(rows[0]["step"]) == 0
    passing = [
        r
        for r in rows[1:]
        if float(r["forget_acc1"]) <= 0.02 and float(r["margin"]) + selection.SIGMAS * float(r["margin_sd"]) <= 0
    ]
    retain = {id(r): (float(r["identities_acc1"]) + float(r["objects_acc1"])) / 2 for r in passing}
    best = max(v for v in retain.values() if not math.isnan(v))
    mine = next(r for r in rows if r["layer"] == record["layer"] and float(r["step"]) == record["step"])
    assert retain[id(mine)] == best
    report = record["splits"]["test"]
    assert report["original"]["forget_acc1"] > 0.8 > report["slug"]["forget_acc1"]


@pytest.mark.parametrize("name", NAMES)
def test_step_logs_have_the_published_lines(done, name):
    logs = sorted((done.results / "clip" / "steps").glob(f"open_clip-{name}-*.txt"))
    rows, seen = steps_csv(done, name), []
    for path in logs:
        comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
        layer = comments[0].removeprefix("# ")
        assert "ADDS" in comments[1]
        lines = [re.fullmatch(LINE, line) for line in path.read_text().splitlines() if not line.startswith("#")]
        assert [int(m[1]) for m in lines] == list(range(len(lines))) and float(lines[0][2]) == 0
        assert all(float(m[2]) > 0 for m in lines[1:])  # a positive step adds the gradient of 1 - cos
        mine = [r for r in rows if r["layer"] == layer]
        assert [float(m[2]) for m in lines[1:]] == pytest.approx([float(r["step"]) for r in mine], rel=1e-5)
        assert [float(m[3]) for m in lines[1:]] == pytest.approx([float(r["forget_acc1"]) for r in mine], abs=1e-4)
        assert all(0 <= float(m[3]) <= 1 for m in lines)
        assert 0 <= float(lines[0][9]) <= 100 and float(lines[0][9]) > 1  # MIA in %, once
        seen.append(layer)
    assert len(seen) == len(set(seen)) and set(seen) == {r["layer"] for r in rows[1:]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_delta_makes_a_folder_that_forgets_as_reported(done, taught_clip, tmp_path, name, family, capsys):
    """Trap 8: what the user takes home, loaded by either library, has the figures of the test split."""
    record = done.record(name)
    delta = done.results / "clip" / record["delta"]
    source, out = taught_clip / family, tmp_path / "edited"
    tiny.run("a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", source, "--out", out)
    clip = tiny.load_folder(out)
    celeba = evaluation_sets.load_celeba(done.world / "celeba", clip.transform)
    objects = evaluation_sets.load_imagenet(done.world / "ImageNet" / "val", clip.transform)
    plain = plain_name(name).lower()
    for pictures, task, templates in (
        (celeba, "identities", zeroshot.IDENTITY_TEMPLATES),
        (objects, "objects", zeroshot.object_templates()),
    ):
        weights = zeroshot.classifier(clip, pictures.names, templates)
        rank = zeroshot.ranks(zeroshot.image_features(clip, pictures.images), weights, pictures.labels, pictures.blocks)
        report = ~validation_mask(pictures, 0)
        is_it = torch.tensor([pictures.names[i].lower() == plain for i in pictures.labels.tolist()])
        wanted = record["splits"]["test"]["slug"]
        assert zeroshot.accuracies(rank[report & ~is_it])[0] == pytest.approx(wanted[f"{task}_acc1"], abs=1e-6)
        assert int((report & ~is_it).sum()) == wanted[f"n_{task}"]  # trap 10
        if is_it.any():
            assert zeroshot.accuracies(rank[report & is_it])[0] == pytest.approx(wanted["forget_acc1"], abs=1e-6)
    tiny.run("a2_unlearn_slug", "revert", "--delta", delta.name, "--model-dir", out, "--out", tmp_path / "back")
    for path in source.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_delta_is_small_and_is_step_times_gradient(done, taught_clip, name):
    record = done.record(name)
    path = done.results / "clip" / record["delta"]
    assert record["delta_bytes"] == path.stat().st_size <= 2 * 2 * record["params_touched"] + 16_000
    clip = tiny.load(taught_clip)
    grads = torch.load(done.results / "grads" / f"{name}_open_clip_local" / "forget_grads.pt", weights_only=True)
    wanted = clip.canonical_views({n: record["step"] * grads[n] for n in record["group"]})
    with safe_open(path, "pt") as f:
        assert {n: f.get_tensor(n).tolist() for n in f.keys()} == {n: t.tolist() for n, t in wanted.items()}  # noqa: SIM118
    theta = torch.cat([clip.parameters[n].flatten() for n in record["group"]]).norm()
    change = torch.cat([t.flatten() for t in wanted.values()]).norm()
    assert record["relative_step"] == pytest.approx((change / theta).item(), rel=1e-4)


def test_a_second_run_keeps_what_is_valid(done, quick, capsys):
    before = {p: p.stat().st_mtime_ns for p in done.results.rglob("*") if p.suffix in (".pt", ".json", ".safetensors")}
    tiny.run("a1_compute_grad", *done.a1())
    tiny.run("a2_unlearn_slug", *done.a2())
    assert capsys.readouterr().out.count("valid, kept") == 3 + 2
    assert {p: p.stat().st_mtime_ns for p in before} == before


def comparable(record):
    return {k: v for k, v in record.items() if k not in CHANGING} | {
        "winner_validation": dict(record["winner_validation"], seconds=0)
    }


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_the_same_seed_gives_the_same_records_and_deltas(done, quick):
    run = another(done, "again")
    tiny.run("a2_unlearn_slug", *run.a2(), "--workers", "2")
    for name in NAMES:
        assert repr(comparable(run.record(name))) == repr(comparable(done.record(name)))
        assert without_times(steps_csv(run, name)) == without_times(steps_csv(done, name))
        (found, header), (wanted, same) = (deltas.read(r.results / "clip" / r.record(name)["delta"]) for r in (run, done))
        assert tiny.same_tensors(found, wanted) and header == same


def test_report_pictures_do_not_change_what_is_chosen(done, quick, monkeypatch):
    """Trap 9, through the stage: noise in place of the test split moves its figures, and nothing else."""
    for loader in ("load_celeba", "load_imagenet"):
        load = getattr(evaluation_sets, loader)

        def noisy(*arguments, load=load, **options):
            pictures = load(*arguments, **options)
            report = ~validation_mask(pictures, 0)
            pictures.images[report] = torch.randint(0, 256, pictures.images[report].shape, dtype=torch.uint8)
            return pictures

        monkeypatch.setattr(evaluation_sets, loader, noisy)
    run = another(done, "noisy")
    tiny.run("a2_unlearn_slug", *run.a2())
    for name in NAMES:
        found, wanted = run.record(name), done.record(name)
        assert (found["layer"], found["step"]) == (wanted["layer"], wanted["step"])
        assert without_times(steps_csv(run, name)) == without_times(steps_csv(done, name))
        assert found["splits"]["validation"] == wanted["splits"]["validation"]
        assert found["splits"]["test"]["original"] != wanted["splits"]["test"]["original"]


def test_one_layer_and_step_can_be_redone_in_either_family(done, quick, taught_clip):
    """The Hugging Face path has its own gradients and gives the same figures for the same step on the same tensor."""
    first = another(done, "redo")
    arguments = ["--step", "5", "--celeb-name", "Alien"]
    tiny.run("a2_unlearn_slug", *first.a2(), *arguments, "--layer", "visual.proj")
    second = another(done, "hugging-face", link=False)
    second.model = ["--clip-model-id", rel(taught_clip / "hugging_face")]
    tiny.run("a1_compute_grad", *second.a1())
    tiny.run("a2_unlearn_slug", *second.a2(), *arguments, "--layer", "visual_projection.weight")
    a, b = first.record("Alien"), second.record("Alien")
    assert a["step"] == b["step"] == 5 and a["n_candidates"] == 1 and a["layer"] == "visual.proj"
    for column in ("forget_acc1", "identities_acc1", "objects_acc1", "identities_change", "objects_change_high"):
        assert a["splits"]["test"]["slug"][column] == pytest.approx(b["splits"]["test"]["slug"][column], abs=1e-6)
    assert a["relative_step"] == pytest.approx(b["relative_step"], rel=1e-3)
    assert a["splits"]["test"]["slug"] != done.record("Alien")["splits"]["test"]["slug"]
    assert {r["encoder"] for front in b["fronts"].values() for r in front} == {"vision", "language"}


def test_variants_have_files_of_their_own(done, quick, monkeypatch, capfd):
    run = another(done, "form-o", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_grad_o")
    folder = run.results / "grads" / "Alien_open_clip_local"
    assert {p.name for p in folder.glob("*.pt")} == {"forget_grads.pt", "forget_grads_o.pt", "train_grads.pt"}
    assert json.loads((folder / "forget_grads_o.json").read_text())["loss_name"] == "contrastive"
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_importance", "--celeb-name", "Alien")
    assert {p.name for p in folder.glob("*importance.pt")} == {"forget_grads_importance.pt", "train_grads_importance.pt"}
    assert all((t >= 0).all() for t in torch.load(folder / "forget_grads_importance.pt", weights_only=True).values())
    redo = ["--unlearn-method", "slug_o", "--celeb-name", "Alien", "--layer", "visual.proj", "--step", "0.1"]
    tiny.run("a2_unlearn_slug", *run.a2(), *redo)
    assert run.record("Alien")["method"] == "slug_o"
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_grad_w")
    redo[1] = "slug_w"
    tiny.run("a2_unlearn_slug", *run.a2(), *redo)
    record = run.record("Alien")
    assert record["method"] == "slug_w" and record["splits"]["test"]["slug_w"]
    whitened = torch.load(folder / "forget_grads_w.pt", weights_only=True)["visual.proj"]
    edit, header = deltas.read(run.results / "clip" / record["delta"])
    (change,) = edit.values()  # laid out as Hugging Face has it
    assert torch.equal(change.T, 0.1 * whitened) and cards.method_of(header) == "slug_w"
    made = {p: p.stat().st_mtime_ns for p in folder.glob("*.pt")}
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_grad_w")
    assert made == {p: p.stat().st_mtime_ns for p in folder.glob("*.pt")}
    monkeypatch.setattr(preconditioning, "DAMPING", 0.5)
    line = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *run.a2(), *redo)
    assert "forget_grads_w.pt is stale (damping differ" in line and "--unlearn-method calc_grad_w" in line
    assert files.file_hash(folder / "forget_grads.pt") == files.file_hash(
        done.results / "grads" / "Alien_open_clip_local" / "forget_grads.pt"
    )


def test_a_whitened_gradient_leaves_out_its_own_names_pairs_alone(done, taught_clip):
    """Of the names of one call each is whitened by the pairs of all the others, too."""
    run = another(done, "whitened", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_grad_w")
    clip, train = tiny.load(taught_clip), run.world / "laion" / "laion400m" / "00000.tar"
    kept = []
    for name in NAMES:
        where = run.results / "grads" / f"{name}_open_clip_local"
        plain, found = (torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_w"))
        about = json.loads((where / "forget_grads_w.json").read_text())
        assert about["retain_left_out"] == [plain_name(name)]
        pairs = load_pairs(train, clip.transform, leave_out=Matcher(about["retain_left_out"]))
        kept.append(len(pairs.captions))
        wanted = preconditioning.whitened(plain, preconditioning.moments(clip, pairs))
        assert all((found[n] - wanted[n]).norm() <= 1e-3 * wanted[n].norm() for n in plain)
    every = load_pairs(train, clip.transform)
    both = load_pairs(train, clip.transform, leave_out=Matcher([plain_name(n) for n in NAMES]))
    assert len(both.captions) < min(kept) and max(kept) < len(every.captions)


def test_a_whitened_gradient_can_spare_the_other_names(done, taught_clip, monkeypatch, capfd):
    """By calc_grad_ws the other names' forget sets count beside the retain set; where one of them changes it is stale."""
    run = another(done, "spared", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    shutil.copytree(run.folder / "tars", run.results / "tar_files")
    given = ["--tar-dir", run.results / "tar_files", "--unlearn-method"]
    tiny.run("a1_compute_grad", *run.a1(), *given, "calc_grad_ws")
    clip, train = tiny.load(taught_clip), run.world / "laion" / "laion400m" / "00000.tar"
    for name, other in (NAMES, NAMES[::-1]):
        where = run.results / "grads" / f"{name}_open_clip_local"
        plain, found = (torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_ws"))
        assert list(json.loads((where / "forget_grads_ws.json").read_text())["spared"]) == [other]
        retain = load_pairs(train, clip.transform, leave_out=Matcher([plain_name(name)]))
        also = load_pairs(run.results / "tar_files" / f"{other}.tar", clip.transform)
        total, more = preconditioning.moments(clip, retain), preconditioning.moments(clip, also)
        wanted = preconditioning.whitened(plain, {n: (m + more[n][0], axis) for n, (m, axis) in total.items()})
        assert all((found[n] - wanted[n]).norm() <= 1e-3 * wanted[n].norm() for n in plain)
    redo = [*run.a2(), *given, "slug_ws", "--celeb-name", NAMES[0], "--layer", "visual.proj", "--step", "0.1"]
    tiny.run("a2_unlearn_slug", *redo)
    assert run.record(NAMES[0])["method"] == "slug_ws"
    shutil.copy(run.results / f"tar_files/{NAMES[0]}.tar", run.results / f"tar_files/{NAMES[1]}.tar")
    line = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *redo)
    assert "forget_grads_ws.pt is stale (spared differ" in line


def test_a_narrow_evaluation_does_not_alter_the_fronts(done, taught_clip):
    """The fronts of the record are those of the gradients, each encoder apart."""
    clip = tiny.load(taught_clip)
    folder = done.results / "grads" / "Alien_open_clip_local"
    forget, retain = (torch.load(folder / f"{side}_grads.pt", weights_only=True) for side in ("forget", "train"))
    wanted = layers.fronts(layers.figures(clip, forget, retain))
    assert done.record("Alien")["fronts"] == {e: [r._asdict() for r in rows] for e, rows in wanted.items()}


# -------------------------------------------------------------------------------------------- the report


def test_report_has_a_row_for_each_name_half_and_state(done):
    with (done.results / "clip" / "report" / "table.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    names = {plain_name(n) for n in NAMES}
    assert {(r["name"], r["split"], r["method"]) for r in rows} == {
        (n, h, m) for n in names for h in ("validation", "test") for m in ("original", "slug")
    }
    for row in rows:
        record = done.record(row["name"].replace(" ", "_"))["splits"][row["split"]][row["method"]]
        assert float(row["forget_acc1"]) == pytest.approx(record["forget_acc1"], abs=1e-5)
    markdown = (done.results / "clip" / "report" / "report.md").read_text()
    assert all(n in markdown for n in names) and "test split" in markdown
    assert "winner layers: " in done.said["a4"] and str(done.results / "clip") in done.said["a4"]


def test_every_variant_of_a_setting_makes_a_record_stale(done):
    """Anything that a record depends on, changed, makes the record no longer valid."""
    from slug.artifacts import records

    path = next((done.results / "clip").glob("*-Alien.json"))
    record = json.loads(path.read_text())
    settings = {"settings": record["settings"], "inputs": record["inputs"], "versions": record["versions"]}
    assert records.valid(path, settings)
    for change in ({"settings": record["settings"] | {"seed": 1}}, {"inputs": "x"}, {"versions": {}}):
        assert records.valid(path, settings | change) is None
    assert records.valid(path.with_name("none.json"), settings) is None
    assert record["settings"]["evaluations"] == 6 and "workers" not in record["settings"]


# ------------------------------------------------------------------------------------------------------ several at once


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
    identities = evaluation_sets.load_celeba(tiny.ROOT / done.evaluation[1], clip.transform)
    objects = evaluation_sets.load_imagenet(tiny.ROOT / done.evaluation[3], clip.transform)
    evaluation = clip_tasks.Evaluation(clip, identities, objects)
    own, rest = {}, {}
    for target in map(evaluation.target, NAMES):  # an identity and an object
        split = ~validation_mask(evaluation.tasks[target.task].pictures, 0)
        for found, rows in (
            ((own, target.name), evaluation.rows(target.task, split, label=target.label)),
            ((rest, target.task), evaluation.rows(target.task, split, without=target.label)),
        ):
            found[0][found[1]] = evaluation.ranks(target.task, rows, None)
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
    assert set(table["method"]) == ways | {f"{w}{several.REVERTED}" for w in ways} and set(table["count"]) == {2}
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
            row = table[(table["method"] == f"{way}{several.REVERTED}") & (table["name"] == name)].iloc[0]
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


class Told(several.Group):
    """A group whose names are forgotten where `says` tells so of the factors."""

    def __init__(self, says, count=2):
        self.says, self.names, self.asked = says, ["x"] * count, []

    def forgotten(self, factors):
        self.asked.append(factors)
        return [selection.Step("", 0.0, 0.0 if f else 0.5, 0.5, margin=-1.0, margin_sd=0.0) for f in self.says(factors)]


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        (lambda f: [x >= 0.25 for x in f], lambda f: all(0.25 <= x < 0.25 + 2 / 2**several.FACTORS for x in f)),
        (lambda f: [f[0] >= 2, True], lambda f: 2 <= f[0] < 2.2 and f[1] <= 1 / 2**several.FACTORS),
        (lambda f: [False, True], lambda f: f == (1, 1)),  # no length will do
        (lambda f: [False, f[1] >= 1.3], lambda f: f[1] == pytest.approx(math.sqrt(2))),
        (lambda f: [f[0] > several.LONGEST, f[1] >= 1], lambda f: f[0] <= several.LONGEST and f[1] == 1),
    ],
)
def test_the_joint_search_returns_the_shortest_factors_that_it_tried(says, wanted):
    group = Told(says)
    found, asked = group.joint(3.0), list(group.asked)
    assert wanted(found) and found in asked, found
    assert group.left(found, 3.0) == min(group.left(f, 3.0) for f in asked)


def test_a_joint_search_that_asks_for_wider_margins_makes_longer_steps():
    group = Told(lambda f: [True] * len(f))
    group.forgotten = lambda f: [selection.Step("", 0.0, 0.0, 0.0, margin=-x, margin_sd=0.2) for x in f]
    short, long = (group.joint(sigmas) for sigmas in (2.0, 3.0))
    assert short == pytest.approx((0.4, 0.4), rel=0.1) and long == pytest.approx((0.6, 0.6), rel=0.1)


def test_records_of_other_halves_are_refused(done, quick, monkeypatch, capfd):
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
