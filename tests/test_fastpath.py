"""What is reused changes nothing: towers of stages, the caches and their budget, the decode cache, fast against plain."""

import itertools

import pytest
import tiny
import torch
from PIL import Image

from slug import models, system
from slug.core import layers, slug
from slug.core.edit import applied
from slug.data.evaluation_sets import PictureSet
from slug.data.images import decode
from slug.data.pairs import Pairs
from slug.evaluation import clip_judge, clip_tasks, reference
from slug.models import towers


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Worker processes that decode change nothing and take longer to start than a few pictures."""
    monkeypatch.setattr(reference, "WORKERS", 0)


TEXTS = ["a", "alien monster.", "a photo of a bento box on a plain background", "2nd place medal"]


def whole(clip, encoder, inputs):
    """Unit features by the library's own forward pass."""
    with torch.no_grad():
        if encoder == "vision":
            return clip.unit(clip.whole_image(clip.normalise(inputs)))
        return clip.unit(clip.whole_text(inputs))


def inputs_of(clip, n=4):
    size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
    return {"vision": images, "language": clip.tokenize(TEXTS[:n])}


def random_edit(clip, name, seed=0):
    """A change of a layer's group that is 30% of its weights' norm."""
    g = torch.Generator().manual_seed(seed)
    made = {}
    for n in clip.group(name):
        noise = torch.randn(clip.parameters[n].shape, generator=g)
        made[n] = 0.3 * clip.parameters[n].norm() / noise.norm() * noise
    return made


def check_every_stage(clip, per_stage=1):
    """For `per_stage` layers of every stage of both towers: an edit resumed from kept activations gives what the library's
    whole forward pass gives, to 1e-5, and so does the next edit of another stage. Returns {encoder: stages edited}."""
    found, inputs = {}, inputs_of(clip)
    for encoder, x in inputs.items():
        tower = towers.Tower(clip, encoder, x, batch_size=3, budget=towers.Budget(1.0, clip.device))
        assert (tower.fill() - whole(clip, encoder, x)).abs().max() < 1e-5
        assert set(tower.kept) == set(range(1, len(tower.stages)))
        names = [n for n, e in clip.candidates().items() if e == encoder]
        by_stage = {}
        for name in names:
            by_stage.setdefault(clip.stage(name), []).append(name)
        for stage, members in sorted(by_stage.items(), reverse=True):
            assert stage < len(tower.stages)
            for name in members[:: max(1, len(members) // per_stage)][:per_stage]:
                with applied(clip, random_edit(clip, name)):
                    wanted = whole(clip, encoder, x)
                    for start in {stage, 0}:
                        assert (tower.features(start=start) - wanted).abs().max() < 1e-5, (name, start)
                    some = tower.features(torch.tensor([3, 0]), stage)
                    assert (some - wanted[[3, 0]]).abs().max() < 1e-5
        assert (tower.features(start=len(tower.stages) - 1) - whole(clip, encoder, x)).abs().max() < 1e-5
        found[encoder] = sorted(by_stage)
    return found


def test_an_edit_of_any_layer_resumes_at_its_stage(clip):
    """Every layer of the tiny models, both families; embedding, two blocks and the head are four stages."""
    found = check_every_stage(clip, per_stage=100)
    assert found == {"vision": [0, 1, 2, 3], "language": [1, 2, 3]}  # text embeddings are never edited


def test_what_enters_a_stage_does_not_depend_on_its_parameters(clip):
    """The other half of the bargain: `stage` names the FIRST stage that reads a parameter, else reuse would save nothing."""
    for encoder, x in inputs_of(clip).items():
        for name in (n for n, e in clip.candidates().items() if e == encoder):
            stages = clip.stages(encoder)
            with torch.no_grad():
                before = towers.run(stages[: clip.stage(name)], x, x)
                with applied(clip, random_edit(clip, name)):
                    assert torch.equal(towers.run(stages[: clip.stage(name)], x, x), before)
                    after = towers.run(stages[: clip.stage(name) + 1], x, x)
                assert not torch.equal(after, towers.run(stages[: clip.stage(name) + 1], x, x))


def test_the_budget_bounds_what_is_kept_and_changes_nothing(clip, capfd):
    x = inputs_of(clip)["vision"]
    free = towers.Tower(clip, "vision", x, budget=towers.Budget(1.0, clip.device))
    wanted, size = free.fill(), free._size(1)
    for bytes_, most in ((size, 1), (int(1.5 * size), 2)):
        budget = towers.Budget(bytes_ / 2**30, clip.device)
        tower = towers.Tower(clip, "vision", x, batch_size=2, budget=budget)
        tower.fill()
        for stage in (3, 1, 2, 3, 1):
            assert (tower.features(start=stage) - wanted).abs().max() < 1e-6
            assert budget.left >= 0 and sum(tower._size(s) for s in tower.kept) == budget.total - budget.left
            assert len(tower.kept) <= most
            assert stage in tower.kept  # the one in use has the room
        assert "--cache-gb" in capfd.readouterr().out
    none = towers.Tower(clip, "vision", x, budget=towers.Budget(0.0, clip.device))
    assert torch.equal(none.fill(), wanted) and (none.features(start=2) - wanted).abs().max() < 1e-6 and not none.kept


def test_a_text_is_never_padded_where_the_tower_is_causal(clip):
    tower = towers.Tower(clip, "language", clip.tokenize(TEXTS))
    lengths = clip.text_lengths(clip.tokenize(TEXTS))
    assert len(tower.groups) == len(set(lengths.tolist()))
    for rows, tokens in tower.groups:
        assert (lengths[rows] == tokens.shape[1]).all()


def test_a_tower_of_another_kind_takes_the_whole_way(clip, monkeypatch):
    """A family that knows no stages has one, the library's forward pass, and no text is cut."""
    for name in ("stages", "stage", "text_lengths"):
        monkeypatch.setattr(type(clip), name, getattr(models.Clip, name))
    for encoder, x in inputs_of(clip).items():
        tower = towers.Tower(clip, encoder, x, budget=towers.Budget(1.0, clip.device))
        assert len(tower.stages) == 1 and torch.equal(tower.fill(), whole(clip, encoder, x)) and not tower.kept
        assert len(tower.groups) == 1


def check_steps_in_one_pass(clip, layers_per_tower):
    """Features under several steps of a layer's edit, in one pass, are those under each step by itself; the model's own
    weights stay."""
    inputs, before = inputs_of(clip), {n: p.detach().clone() for n, p in clip.parameters.items()}
    for encoder, x in inputs.items():
        tower = towers.Tower(clip, encoder, x, batch_size=3, budget=towers.Budget(1.0, clip.device))
        tower.fill()
        names = [n for n, e in clip.candidates().items() if e == encoder]
        for name in names[:: max(1, len(names) // layers_per_tower)]:
            edit, steps, rows = random_edit(clip, name), [0.5, -1.0, 2.0], torch.tensor([3, 0, 1])
            together = tower.features(rows, clip.stage(name), edit=edit, steps=steps)
            assert together.shape[:2] == (3, 3)
            for step, found in zip(steps, together.unbind(1), strict=True):
                with applied(clip, {n: step * t for n, t in edit.items()}):
                    assert (found - tower.features(rows, clip.stage(name))).abs().max() < 1e-5, (name, step)
    assert tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


def test_many_steps_go_through_in_one_pass(clip):
    check_steps_in_one_pass(clip, layers_per_tower=100)


def test_looking_ahead_changes_no_step_and_no_figure(clip, tmp_path, monkeypatch):
    both = Both(clip, tmp_path)
    chosen = [n for n, e in clip.candidates().items()][::7]
    rows = [layers.Layer(n, clip.encoder(n), 1.0, 0.0) for n in chosen]
    forget = {n: t for name in chosen for n, t in random_edit(clip, name).items()}
    asked, ask = [], clip_tasks.Evaluation.forget_steps
    monkeypatch.setattr(clip_tasks.Evaluation, "forget_steps", lambda self, *a: asked.append(len(a[-1])) or ask(self, *a))
    found = []
    for depth in (1, 3):
        curves, best = slug.search_all(clip, both.judges[0], rows, forget, evaluations=5, log_all=True, depth=depth)
        found.append([s._replace(seconds=0) for steps in curves.values() for s in [*steps, best]])
        assert bool(asked) == (depth > 1)
    assert max(asked) > 3
    for one, ahead in zip(*found, strict=True):
        assert one[0] == ahead[0] and one[1:] == pytest.approx(ahead[1:], abs=1e-5, nan_ok=True)


def test_the_default_budget_is_a_quarter_of_the_free_memory():
    free = system.free_memory(torch.device("cpu"))
    assert free > 2**28
    assert towers.Budget(-1, torch.device("cpu")).total == pytest.approx(free / 4, rel=0.2)


# -------------------------------------------------------------------------------------------------------- decode cache


# ------------------------------------------------------------------------------------------------------ fast and plain


class Both:
    """One model, one small evaluation of its own pictures, judged by the fast and by the plain way."""

    def __init__(self, clip, folder, classes=6, each=2):
        size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
        g = torch.Generator().manual_seed(1)
        sets = []
        for task in ("identities", "objects"):
            names, paths = [f"{task} thing {i}" for i in range(classes)], []
            for i in range(classes * each):
                paths.append(folder / f"{task}-{i}.png")
                noise = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=g)
                Image.fromarray(noise.numpy()).save(paths[-1])
            paths = [str(p) for p in paths]
            images, _ = decode(paths, clip.transform)
            labels, seen = torch.arange(classes).repeat_interleave(each), torch.ones(classes * each, dtype=torch.bool)
            sets.append(PictureSet(images, labels, names, torch.zeros(classes), paths, seen, 0, tuple(paths)))
        self.clip, split = clip, {t: torch.ones(classes * each, dtype=torch.bool) for t in ("identities", "objects")}
        self.evaluations = [clip_tasks.Evaluation(clip, *sets), reference.PlainEvaluation(clip, *sets)]
        self.target = self.evaluations[0].target("identities thing 0")
        pairs = Pairs(sets[0].images[:each], sets[0].names[:1] * each, ["0"] * each, 0)
        self.judges = [clip_judge.Judge(clip, e, self.target, pairs, split) for e in self.evaluations]

    def walk(self, layer, count):
        """`count` steps of a layer, both ways: cosines agree to 1e-5, top-5 predictions too but at ties within that."""
        group = self.clip.group(layer)
        edit = random_edit(self.clip, layer)
        for n in range(1, count + 1):
            rows = []
            for evaluation, judge in zip(self.evaluations, self.judges, strict=True):
                with evaluation.applied({p: n * t / count for p, t in edit.items()}), evaluation.same_weights():
                    sides = {
                        t: evaluation.sides(t, torch.arange(len(k.features)), layer) for t, k in evaluation.tasks.items()
                    }
                    rows.append((judge.step(layer, float(n), layer, log_all=True), sides))
            assert set(group) == set(edit)
            (fast, a), (slow, b) = rows
            for task in a:
                cosines = [(features @ weights.T).cpu() for features, weights in (a[task], b[task])]
                assert (cosines[0] - cosines[1]).abs().max() < 1e-5
                top = [c.topk(5).values for c in cosines]
                assert (top[0] - top[1]).abs().max() < 1e-5
                near = (top[1].diff(dim=1).abs() < 2e-5).any(1)
                same = (cosines[0].topk(5).indices == cosines[1].topk(5).indices).all(1)
                assert (same | near).all()
            if not near.any():
                assert fast[2:-1] == pytest.approx(slow[2:-1], abs=1e-4, nan_ok=True)


def test_fast_and_plain_walk_ten_steps_alike_on_the_tiny_models(clip, tmp_path):
    both = Both(clip, tmp_path)
    for encoder in ("vision", "language"):
        for layer in [n for n, e in clip.candidates().items() if e == encoder][::6]:
            both.walk(layer, 10)


@pytest.mark.parametrize("same", [True, False])
def test_a_low_precision_holds_only_where_it_changes_no_answer(clip, tmp_path, monkeypatch, capfd, same):
    answers = itertools.repeat(0) if same else itertools.count()
    monkeypatch.setattr(clip_tasks, "guessed", lambda task: torch.full((len(task.features),), next(answers)))
    clip.autocast = torch.bfloat16
    task = Both(clip, tmp_path).evaluations[0].tasks["objects"]
    assert clip.autocast == (torch.bfloat16 if same else None)
    assert ("24 of 24 top-1 answers; evaluations are in float32" in capfd.readouterr().out) != same
    with torch.no_grad():
        exact = (task.features - clip.encode_image(task.pictures.images)).abs().max()
    assert 1e-4 < exact < 0.05 if same else exact < 1e-6


def test_a_plain_edit_leaves_the_model_and_its_parameters_alone(clip, tmp_path):
    both = Both(clip, tmp_path)
    module, before = clip.module, {n: p.clone() for n, p in clip.parameters.items()}
    layer = next(iter(clip.candidates()))
    with pytest.raises(KeyboardInterrupt), both.evaluations[1].applied(random_edit(clip, layer)):
        assert clip.module is not module and not torch.equal(clip.parameters[layer], before[layer])
        raise KeyboardInterrupt
    assert clip.module is module and tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


def test_the_search_by_the_plain_way_writes_the_same_log(taught_clip, tiny_world, tmp_path, monkeypatch):
    """a2 with --plain and with --log-all: every line of every step log, the winner, and the report."""
    from test_stages import PLOTS, Run, plots

    for name in PLOTS:
        monkeypatch.setattr(plots, name, lambda *a, **k: None)
    run = Run(tiny_world, taught_clip / "open_clip", tmp_path)
    tiny.run("a0_create_tar", *run.a0())
    tiny.run("a1_compute_grad", *run.a1())
    logs, records = [], []
    for flag in ("--log-all", "--plain"):
        tiny.run("a2_unlearn_slug", *run.a2(), "--celeb-name", "Alien", flag, "--force")
        logs.append({p.name: p.read_text() for p in sorted((run.results / "clip" / "steps").glob("*Alien*.txt"))})
        records.append(run.record("Alien"))
    assert logs[0] == logs[1] and len(logs[0]) > 1
    for key in ("layer", "step", "n_candidates"):
        assert records[0][key] == records[1][key]
    for split in ("validation", "test"):
        for state in ("original", "slug"):
            assert records[0]["splits"][split][state] == pytest.approx(records[1]["splits"][split][state], nan_ok=True)


def test_candidates_of_one_state_share_their_classifier(clip, tmp_path, monkeypatch):
    both = Both(clip, tmp_path)
    evaluation, made = both.evaluations[0], []
    features = towers.Tower.features
    monkeypatch.setattr(
        towers.Tower,
        "features",
        lambda self, *a, **k: made.append(self.encoder) or features(self, *a, **k),
    )
    layer = next(n for n, e in clip.candidates().items() if e == "language")
    rows = torch.arange(4)
    with evaluation.same_weights():
        first = evaluation.sides("objects", rows, layer)[1]
        with evaluation.same_weights():
            assert torch.equal(evaluation.sides("objects", rows, layer)[1], first)
    assert made == ["language"]
    evaluation.sides("objects", rows, layer)
    assert made == ["language", "language"]  # outside, nothing is remembered: the weights may have changed


def test_the_winner_is_the_same_with_and_without_everything_logged(clip, tmp_path):
    """Early stopping and reuse choose what a full look chooses (random weights forget at once: retain decides)."""
    both = Both(clip, tmp_path)
    fronts = [n for n, e in clip.candidates().items()][::5]
    rows = [layers.Layer(n, clip.encoder(n), 1.0, 0.0) for n in fronts]
    forget = {n: t for name in fronts for n, t in random_edit(clip, name).items()}
    best = {}
    for log_all in (False, True):
        _, best[log_all] = slug.search_all(clip, both.judges[0], rows, forget, evaluations=4, log_all=log_all)
    assert (best[False].layer, best[False].step) == (best[True].layer, best[True].step)
    if best[True].forgets:
        assert best[False].retain == pytest.approx(best[True].retain)
