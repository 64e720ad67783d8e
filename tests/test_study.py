"""The study of the paper's claims: its runs on the tiny world, and the rule of its verdicts on tables made by hand."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

import pandas as pd
import pytest
import tiny
import torch

from slug import files
from slug.artifacts import gradient_files
from slug.core import layers, slug
from slug.core.edit import edited_by
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs, read_tar, source_images
from slug.evaluation import clip_judge
from slug.experiments import study

NAMES = ("Alien", "Bento_Box")
CHANGING = ["seconds", "gradient_s", "search_s", "run_s", "process", "settings"]  # from run to run


class Prepared:
    """Forget sets and gradients of the tiny world, and the flags of a study on them."""

    def __init__(self, world, model, folder):
        self.folder, self.shards = folder, world / "laion" / "laion400m"
        tars = ["--tar-dir", folder / "tars"]
        quiet = ["--workers", "0", "--device", "cpu"]
        train = ["--train-data", self.shards / "00000.tar", "--model", f"local-dir:{model}"]
        found = ["--image-dir", folder / "pictures", "--known-names", world / "names.txt", "--result-dir", folder / "r"]
        tiny.run("a0_create_tar", "--name", *NAMES, "--laion-dir", self.shards, *tars, *found, *quiet)
        tiny.run("a1_compute_grad", "--celeb-name", *NAMES, *tars, *train, "--result-dir", folder / "r", *quiet)
        evaluation = ["--val-data", world / "celeba", "--imagenet-val", world / "ImageNet" / "val"]
        self.flags = [*tars, *train, *evaluation, *quiet, "--laion-dir", self.shards]

    def arguments(self, results, *more, names=NAMES):
        """Flags of a6 for a result folder of its own, to which the gradients are linked."""
        folder = self.folder / results
        if not folder.exists():
            folder.mkdir()
            (folder / "grads").symlink_to(self.folder / "r" / "grads")
        return [str(a) for a in ("--celeb-name", *names, *self.flags, "--result-dir", folder, *more)]

    def study(self, results, *more, **how):
        """The table after a6 has run in this process."""
        tiny.run("a6_study", *self.arguments(results, *more, **how))
        return study.read(self.folder / results / "runs.parquet")


@pytest.fixture(autouse=True)
def one_thread():
    """As the processes of a study have here: the last bits of a matrix product depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prepared(taught_clip, tiny_world, tmp_path_factory):
    return Prepared(tiny_world, taught_clip / "open_clip", tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def world(prepared):
    args = tiny.stage("a6_study").parse_args(prepared.arguments("world"))
    return study.World(args)


def assert_same(one, other):
    """The same rows, but for times, processes, and the settings, which say the number of jobs and where results go."""
    one, other = (f.drop(columns=CHANGING).reset_index(drop=True) for f in (one, other))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_run_is_a_row_and_finished_ones_are_kept(prepared, capsys, monkeypatch):
    first = prepared.study("kept", "--variant", "standard")
    assert list(first.columns) == study.SCHEMA.names and len(first) == len(NAMES)
    assert set(first["kind"]) == {"identity", "object"} and first["error"].isna().all()
    assert first["forget_acc1"].between(0, 1).all() and (first["n_forget"] > 0).all()
    assert (first["forget_upper"] >= first["forget_acc1"]).all() and (first["n_candidates"] > 1).all()
    assert (first["original_forget_acc1"] > first["forget_acc1"]).all()
    parts = {p.name: p.read_bytes() for p in (prepared.folder / "kept" / "parts").iterdir()}
    capsys.readouterr()
    both = prepared.study("kept", "--variant", "standard", "vision")
    assert "2 runs are finished and kept" in capsys.readouterr().out
    now = {p.name: p.read_bytes() for p in (prepared.folder / "kept" / "parts").iterdir()}
    assert len(both) == 4 and parts.items() < now.items()
    # Another seed means other splits: nothing is kept, and the table holds nothing of the old ones.
    other = prepared.study("kept", "--variant", "vision", "--seed", "1")
    assert list(other["variant"]) == ["vision", "vision"] and set(other["seed"]) == {1}
    # Nor does it of runs whose variant has changed since.
    monkeypatch.setitem(study.VARIANTS, "vision", study.VARIANTS["vision"]._replace(evaluations=2))
    changed = prepared.study("kept", "--variant", "standard", "--seed", "1")
    assert list(changed["variant"]) == ["standard", "standard"]
    assert not tiny.left_over(prepared.folder / "kept")


def test_a_damaged_part_is_done_again(prepared):
    first = prepared.study("damaged", "--variant", "vision", names=NAMES[:1])
    part = next((prepared.folder / "damaged" / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    assert_same(prepared.study("damaged", "--variant", "vision", names=NAMES[:1]), first)


def test_a_failed_run_is_a_row_and_is_tried_again(prepared, tmp_path, capsys, monkeypatch):
    """Drawings are not known without the shards; an error of a library is told by its kind."""
    empty = tmp_path / "shards"
    empty.mkdir()
    frame = prepared.study("failing", "--variant", "standard", "drawings_1", "--laion-dir", empty).set_index("variant")
    assert frame.loc["standard", "error"].isna().all()
    assert all("is in no shard" in e for e in frame.loc["drawings_1", "error"])
    assert frame.loc["drawings_1", "forget_acc1"].isna().all()
    assert "2 failed" in capsys.readouterr().out
    frame = prepared.study("failing", "--variant", "standard", "drawings_1")
    assert frame["error"].isna().all() and set(frame["n_pair_drawings"].dropna()) == {1}
    assert "2 runs are finished and kept" in capsys.readouterr().out

    def broken(*a, **k):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(slug, "search_all", broken)
    frame = prepared.study("failing", "--variant", "vision", names=NAMES[:1])
    assert list(frame.loc[frame["variant"] == "vision", "error"]) == ["MemoryError: no room for it"]
    assert len(frame) == 3  # of the name that was given


def test_two_jobs_give_the_rows_of_one(prepared):
    one = prepared.study("one", "--variant", "vision")
    two = prepared.study("two", "--variant", "vision", "--jobs", "2")
    assert set(one["process"]) == {os.getpid()} and os.getpid() not in set(two["process"])
    assert one["error"].isna().all()
    assert_same(one, two)


def test_variants_of_one_name_share_the_steps_that_they_score(prepared, monkeypatch):
    """The rows are those of runs each by itself; fewer steps are scored."""
    variants, scored = ("standard", "importance", "vision", "evaluations_5", "deepest", "drawings_1"), []
    real = clip_judge.Judge.step
    monkeypatch.setattr(clip_judge.Judge, "step", lambda *a, **k: scored.append(a[1:3]) or real(*a, **k))
    shared = prepared.study("shared", "--variant", *variants, names=NAMES[:1])
    together = len(scored)
    for variant in variants:
        monkeypatch.setattr(study, "_worlds", {})
        alone = prepared.study("alone", "--variant", variant, names=NAMES[:1])
    assert_same(shared, alone)
    assert together < 0.8 * (len(scored) - together) == 0.8 * alone["n_candidates"].sum()


@pytest.mark.slow  # Ray gives up where its own processes have to wait for a busy machine
def test_two_workers_of_ray_give_the_rows_of_one_process(prepared, request):
    pytest.importorskip("ray")
    one = prepared.study("one", "--variant", "vision")
    folder = tempfile.mkdtemp(prefix="ray")  # a socket's path must be short
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    command = [sys.executable, tiny.ROOT / "src" / "clip" / "a6_study.py"]
    command += prepared.arguments("ray", "--variant", "vision", "--engine", "ray", "--jobs", "2")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tiny.ROOT / "src"), "RAY_TMPDIR": folder}
    env |= {"RAY_raylet_start_wait_time_s": "300"}  # of a busy machine
    env.pop("RAY_ADDRESS", None)  # a cluster of the user's own
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    many = study.read(prepared.folder / "ray" / "runs.parquet")
    assert len(set(many["process"])) == 2
    assert_same(one, many)


def test_quick_takes_two_identities_and_an_object(world, monkeypatch):
    (a, b, c, *_), (x, y, *_) = (pictures.names for pictures in world.pictures)
    monkeypatch.setattr(world.args, "celeb_name", [x, a.replace(" ", "_"), y, b, c])
    assert tiny.stage("a6_study").quick_names(world) == [x, a.replace(" ", "_"), b]
    assert 5 < sum(v.quick for v in study.VARIANTS.values()) < len(study.VARIANTS)


@pytest.mark.parametrize(
    "more, said", [(["--jobs", "0"], "--jobs 0"), (["--celeb-name", "Nobody"], "forget set not found")], ids=str
)
def test_wrong_use_ends_with_one_line(prepared, monkeypatch, capfd, more, said):
    assert said in tiny.failure(monkeypatch, capfd, "a6_study", *prepared.arguments("wrong", *more))


# ----------------------------------------------------------------------------------------------------------- variants


@pytest.fixture
def searched(world, monkeypatch):
    """A function: what a variant's search asks of unlearn.search_all, and the Found that it makes of two cheap steps."""
    forget, retain, tar, _ = world.gradients("Alien")
    pairs = load_pairs(tar, world.clip.transform)
    real = slug.search_all

    def find(name):
        calls = []

        def search_all(clip, judge, front, forget, **how):
            calls.append((list(front), forget, how))
            return real(clip, judge, front, forget, **how | {"evaluations": min(how["evaluations"], 2)})

        monkeypatch.setattr(slug, "search_all", search_all)
        variant = study.VARIANTS[name]
        return calls, study.search_variant(world, world.evaluation.target("Alien"), variant, forget, retain, pairs)

    return find


def test_standard_and_towers(world, searched):
    rows = layers.figures(world.clip, *world.gradients("Alien")[:2])
    fronts = layers.fronts(rows)
    calls, found = searched("standard")
    assert [r.name for r in calls[0][0]] == [r.name for e in ("vision", "language") for r in fronts[e]]
    assert calls[0][2] == {"evaluations": 10, "choose": "retain", "together": False, "scale": 1.0}
    assert tuple(found.edit) == world.clip.group(found.layer) and found.n_candidates >= found.n_layers
    for tower in ("vision", "language"):
        calls, found = searched(tower)
        assert [r.name for r in calls[0][0]] == [r.name for r in fronts[tower]]
        assert {world.clip.tower(n) for n in found.edit} == {tower}


def test_rankings_take_as_many_layers_as_the_front(world):
    rows = layers.figures(world.clip, *world.gradients("Alien")[:2])
    for encoder, front in layers.fronts(rows).items():
        mine = [r for r in rows if r.encoder == encoder]
        for ranking, figure in (("importance", lambda r: -r.importance), ("alignment", lambda r: abs(r.alignment))):
            found = study.layers_of(rows, study.Variant("x", "", ranking=ranking, encoders=(encoder,)))
            assert len(found) == len(front) and len({r.name for r in found}) == len(front)
            worst = max(map(figure, found))
            assert all(figure(r) >= worst for r in mine if r not in found)
    assert study.layers_of(rows, study.VARIANTS["all_together"]) == [
        r for e in ("vision", "language") for r in rows if r.encoder == e
    ]


@pytest.mark.parametrize("name", ["front_together", "all_together"])
def test_together_moves_every_layer_by_one_step(world, searched, name):
    forget, retain, _, _ = world.gradients("Alien")
    rows = layers.figures(world.clip, forget, retain)
    fronts = layers.fronts(rows)
    wanted = {r.name for r in (rows if name == "all_together" else [*fronts["vision"], *fronts["language"]])}
    _, found = searched(name)
    assert set(found.edit) == wanted and found.layer == slug.TOGETHER and found.n_candidates == 2
    for n, change in found.edit.items():
        torch.testing.assert_close(change, found.best.step * forget[n])
    first = layers.first_step([world.clip.parameters[n] for n in found.edit], [forget[n] for n in found.edit])
    assert found.best.step / first in (pytest.approx(0.5), pytest.approx(1), pytest.approx(2))


def test_figures_of_many_layers_are_those_of_the_plain_way(world, searched):
    """What an edit of both towers does is judged on features that are all computed anew."""
    _, found = searched("front_together")
    target = world.evaluation.target("Alien")
    judge = world.judge(world.evaluation, target, report=True)
    edited = edited_by(world.clip, tuple(found.edit))
    with world.evaluation.applied(found.edit):
        fast = judge.ranks(edited)
        plain = world.evaluation_now()
    plain = world.judge(plain, target, report=True).ranks(None)
    assert all(torch.equal(fast[k], plain[k]) for k in ("forget", "identities", "objects"))


def test_first_step_evaluations_and_rule_reach_the_search(searched):
    for name, key, value in (
        ("first_tenth", "scale", 0.1),
        ("first_tenfold", "scale", 10.0),
        ("evaluations_5", "evaluations", 5),
        ("evaluations_20", "evaluations", 20),
        ("deepest", "choose", "deepest"),
    ):
        calls, _ = searched(name)
        assert calls[0][2][key] == value


def test_the_first_step_is_scaled(world):
    forget, retain, _, _ = world.gradients("Alien")
    front = layers.fronts(layers.figures(world.clip, forget, retain))["vision"][:1]
    judge = world.judge(world.evaluation, world.evaluation.target("Alien"))
    first = {}
    for scale in (1.0, 10.0):
        curves, _ = slug.search_all(world.clip, judge, front, forget, evaluations=1, scale=scale)
        first[scale] = curves[front[0].name][0].step
    assert first[10.0] == pytest.approx(10 * first[1.0])


def test_rounds_move_other_layers_by_gradients_taken_anew(world, searched):
    before = {n: p.detach().clone() for n, p in world.clip.parameters.items()}
    calls, found = searched("rounds_3")
    moved = found.layer.split(" + ")
    assert len(calls) == 3 and len(set(moved)) == 3 and set(found.edit) == set(moved)
    for (front, _, _), earlier in zip(calls, ([], moved[:1], moved[:2]), strict=True):
        assert not {r.name for r in front} & set(earlier)
    grads = [forget for _, forget, _ in calls]
    assert all(not torch.allclose(a[moved[2]], b[moved[2]]) for a, b in itertools.pairwise(grads))
    # The last layer goes the whole way, the first a third of it.
    torch.testing.assert_close(found.edit[moved[2]], found.best.step * grads[2][moved[2]])
    for (layer, step), forget in zip(found.moved, grads, strict=True):  # what a row says is enough to take the steps again
        torch.testing.assert_close(found.edit[layer], step * forget[layer])
    assert tiny.same_tensors(before, {n: p.detach() for n, p in world.clip.parameters.items()})


def test_the_retain_part_has_fewer_pairs_and_serves_all_names(world):
    whole = world.gradients("Alien")[1]
    found = {}
    for name in ("retain_10", "retain_30", "retain_30_again"):
        found[name] = world.retain_part(study.VARIANTS[name], make=True)
        assert tiny.same_tensors(found[name], world.retain_part(study.VARIANTS[name]))
    records = [json.loads(p.read_text()) for p in sorted((world_folder(world)).glob("train_grads_*.json"))]
    total = len(world.retain_pairs.captions)
    assert [r["pairs"] for r in records] == [batches(round(s * total)) for s in (0.1, 0.3, 0.3)]
    name = next(iter(world.clip.candidates()))
    values = [whole[name], *(g[name] for g in found.values())]
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    assert not Matcher([plain_name(n) for n in NAMES]).find(" ".join(world.retain_pairs.captions))


def batches(pairs, size=16):
    """How many of so many pairs a contrastive gradient sees: an incomplete last batch is dropped."""
    return pairs if pairs < size else pairs // size * size


def world_folder(world):
    return gradient_files.folder(world.args.result_dir, "retain", world.clip.tag)


def test_parts_of_the_retain_set_are_drawn_by_their_seed():
    first, again, other = (study.part_of(1000, 0.3, seed) for seed in ([0, 0], [0, 0], [0, 1]))
    assert first == again != other and len(set(first)) == len(set(other)) == 300
    assert first == sorted(first) and max(first) < 1000 and study.part_of(3, 0.1, 0)


def test_the_forget_part_has_fewer_renderings_or_fewer_drawings():
    drawings = [f"{'abcd'[i % 4]}" for i in range(40)] + ["e"]
    kept = [drawings[i] for i in study.forget_part(drawings, study.VARIANTS["renderings_5"], 0)]
    assert {d: kept.count(d) for d in set(kept)} == {"a": 5, "b": 5, "c": 5, "d": 5, "e": 1}
    rows = study.forget_part(drawings, study.VARIANTS["drawings_2"], 0)
    kept = {drawings[i] for i in rows}
    assert len(kept) == 2 and rows == [i for i, d in enumerate(drawings) if d in kept]
    assert study.forget_part(drawings, study.VARIANTS["standard"], 0) == list(range(41))
    assert len({tuple(study.forget_part(drawings, study.VARIANTS["drawings_1"], s)) for s in range(8)}) > 1


def test_drawings_are_those_of_the_shards(prepared):
    tar = prepared.folder / "tars" / "Alien.tar"
    sidecars = {}
    for shard in sorted(prepared.shards.glob("*.tar")):
        with tarfile.open(shard) as members:
            contents = {m.name: members.extractfile(m).read() for m in members}
        sidecars |= {
            hashlib.sha256(c).hexdigest(): json.loads(contents[n.replace(".jpg", ".json")])["drawing"]
            for n, c in contents.items()
            if n.endswith(".jpg")
        }
    found = source_images(tar, prepared.shards)
    wanted = {key: sidecars[hashlib.sha256(image).hexdigest()] for key, image, _ in read_tar(tar)}
    assert found == wanted and len(set(found.values())) > 1


def test_the_names_of_the_study_are_enough_and_new():
    lines = [(files.ROOT / "data" / "emoji" / f"{n}_names.txt").read_text().splitlines() for n in ("forget", "study")]
    forget, more = ([plain_name(x).casefold() for x in part if not x.startswith("#")] for part in lines)
    assert len(set(forget + more)) == len(forget) + len(more) == 15
    from demo import draw_names, emoji

    kinds = {c.name.casefold(): c.kind for c in emoji.concepts()}
    found = [kinds[n] for n in forget + more]
    assert found.count("identity") == 10 and found.count("object") == 5
    assert not {n.casefold() for n in draw_names.DEVELOPMENT} & set(more)
