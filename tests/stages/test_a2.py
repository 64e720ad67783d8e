"""a2_unlearn_slug.py: the search, its files, and the folders that deltas make."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
from safetensors import safe_open
from tiny_run import NAMES, comparable, rel, without_times

from slug import files
from slug.artifacts import cards, deltas, records
from slug.core import layers, preconditioning
from slug.data import evaluation_sets
from slug.data.names import plain_name
from slug.data.splits import validation_mask
from slug.evaluation import zeroshot
from slug.reports import clip_tables
from slug.reports.pages import clip as clip_page
from slug.reports.pages import looks
from slug.settings import SIGMAS

LINE = (
    r"iter: (\d+), ratio: (\S+), fgt_acc@1: (\S+), fgt_acc@5: (\S+), celeba100@1: (\S+), celeba100@5: (\S+), "
    r"test_acc@1: (\S+), test_acc@5: (\S+), MIA: (\S+)±(\S+)"
)


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
    record, rows = done.record(name), done.steps(name)
    assert record["layer"] in {r["name"] for front in record["fronts"].values() for r in front}
    assert record["n_candidates"] == len(rows) - 1 > 3 and rows[0]["layer"] == "" and float(rows[0]["step"]) == 0
    passing = [
        r for r in rows[1:] if float(r["forget_acc1"]) <= 0.02 and float(r["margin"]) + SIGMAS * float(r["margin_sd"]) <= 0
    ]
    retain = {id(r): (float(r["identities_acc1"]) + float(r["objects_acc1"])) / 2 for r in passing}
    best = max(v for v in retain.values() if not math.isnan(v))
    mine = next(r for r in rows if r["layer"] == record["layer"] and float(r["step"]) == record["step"])
    assert retain[id(mine)] == best
    report = record["splits"]["test"]
    assert report["original"]["forget_acc1"] > 0.8 > report["slug"]["forget_acc1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_show_what_a2_leaves(done, name):
    record = done.record(name)
    found = looks.read(done.results / "clip", record)
    front = {r["name"] for part in record["fronts"].values() for r in part}
    assert front <= {r["name"] for r in found["layers"]} and found["name"] == record["name"]
    own = found["names"][0]  # as the evaluation spells it
    assert own.casefold() == record["name"].casefold()
    shown = [p for p in found["pictures"] if p["own"]]
    assert shown and all(p["before"][0][0] == p["name"] == own for p in shown)
    lost = sum(r["before"] - r["after"] for r in found["by_name"] if r["task"] == "objects")
    report = record["splits"]["test"]
    change = report["original"]["objects_acc1"] - report["slug"]["objects_acc1"]
    assert lost == pytest.approx(change * report["slug"]["n_objects"], abs=1e-3)
    page = clip_page.html(clip_tables.table([record]), [record], done.results / "clip")
    assert "Not shown" not in page and page.count("data:image/") == len(found["pictures"])


@pytest.mark.parametrize("name", NAMES)
def test_step_logs_have_the_published_lines(done, name):
    logs = sorted((done.results / "clip" / "steps").glob(f"open_clip-{name}-*.txt"))
    rows, seen = done.steps(name), []
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
    """What the user takes home, loaded by either library, has the figures of the test split."""
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
        assert int((report & ~is_it).sum()) == wanted[f"n_{task}"]
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


def test_two_processes_find_what_one_finds(done, tmp_path):
    """The search under torchrun: the same files, the same steps and winner, figures up to the last bits."""
    run = done.another("two-processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tiny.ROOT / "src/clip/a2_unlearn_slug.py"), *run.a2(), "--celeb-name", "Alien"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.count("Alien, slug:") == 1
    files = [{p.name for p in (r.results / "clip").rglob("*") if "Alien" in p.name} for r in (run, done)]
    assert files[0] == files[1]
    for two, one in zip(run.steps("Alien"), done.steps("Alien"), strict=True):
        assert two.pop("layer") == one.pop("layer")
        del two["seconds"], one["seconds"]
        for key, value in one.items():
            assert float(two[key] or "nan") == pytest.approx(float(value or "nan"), rel=1e-5, abs=1e-5, nan_ok=True), key
    records = [r.record("Alien") for r in (run, done)]
    assert records[0]["layer"] == records[1]["layer"]
    assert records[0]["splits"]["test"]["slug"]["forget_acc1"] == records[1]["splits"]["test"]["slug"]["forget_acc1"]


def test_the_same_seed_gives_the_same_records_and_deltas(done, quick):
    run = done.another("again")
    tiny.run("a2_unlearn_slug", *run.a2(), "--workers", "2")
    for name in NAMES:
        assert repr(comparable(run.record(name))) == repr(comparable(done.record(name)))
        assert without_times(run.steps(name)) == without_times(done.steps(name))
        (found, header), (wanted, same) = (deltas.read(r.results / "clip" / r.record(name)["delta"]) for r in (run, done))
        assert tiny.same_tensors(found, wanted) and header == same


def test_report_pictures_do_not_change_what_is_chosen(done, quick, monkeypatch):
    """Noise in place of the test split moves its figures, and nothing else."""
    for loader in ("load_celeba", "load_imagenet"):
        load = getattr(evaluation_sets, loader)

        def noisy(*arguments, load=load, **options):
            pictures = load(*arguments, **options)
            report = ~validation_mask(pictures, 0)
            pictures.images[report] = torch.randint(0, 256, pictures.images[report].shape, dtype=torch.uint8)
            return pictures

        monkeypatch.setattr(evaluation_sets, loader, noisy)
    run = done.another("noisy")
    tiny.run("a2_unlearn_slug", *run.a2())
    for name in NAMES:
        found, wanted = run.record(name), done.record(name)
        assert (found["layer"], found["step"]) == (wanted["layer"], wanted["step"])
        assert without_times(run.steps(name)) == without_times(done.steps(name))
        assert found["splits"]["validation"] == wanted["splits"]["validation"]
        assert found["splits"]["test"]["original"] != wanted["splits"]["test"]["original"]


def test_one_layer_and_step_can_be_redone_in_either_family(done, quick, taught_clip):
    """The Hugging Face path has its own gradients and gives the same figures for the same step on the same tensor."""
    first = done.another("redo")
    arguments = ["--step", "5", "--celeb-name", "Alien"]
    tiny.run("a2_unlearn_slug", *first.a2(), *arguments, "--layer", "visual.proj")
    second = done.another("hugging-face", link=False)
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
    run = done.another("form-o", link=False)
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


def test_a_narrow_evaluation_does_not_alter_the_fronts(done, taught_clip):
    """The fronts of the record are those of the gradients, each encoder apart."""
    clip = tiny.load(taught_clip)
    folder = done.results / "grads" / "Alien_open_clip_local"
    forget, retain = (torch.load(folder / f"{side}_grads.pt", weights_only=True) for side in ("forget", "train"))
    wanted = layers.fronts(layers.figures(clip, forget, retain))
    assert done.record("Alien")["fronts"] == {e: [r._asdict() for r in rows] for e, rows in wanted.items()}


def test_every_variant_of_a_setting_makes_a_record_stale(done):
    """Anything that a record depends on, changed, makes the record no longer valid."""
    path = next((done.results / "clip").glob("*-Alien.json"))
    record = json.loads(path.read_text())
    settings = {"settings": record["settings"], "inputs": record["inputs"], "versions": record["versions"]}
    assert records.valid(path, settings)
    for change in ({"settings": record["settings"] | {"seed": 1}}, {"inputs": "x"}, {"versions": {}}):
        assert records.valid(path, settings | change) is None
    assert records.valid(path.with_name("none.json"), settings) is None
    assert record["settings"]["evaluations"] == 6 and "workers" not in record["settings"]
