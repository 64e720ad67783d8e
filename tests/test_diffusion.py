"""Stable Diffusion and the UnlearnCanvas protocol on an untrained pipeline of 16 px."""

import contextlib
import csv
import itertools
import json
import math
import shutil
import types

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import tiny
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

from slug import files, models, schema
from slug.artifacts import cards, deltas, gradient_files
from slug.core import layers, slug
from slug.core.edit import applied
from slug.data.images import decode
from slug.data.names import plain_name
from slug.data.pairs import TarMembers
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, fid, inversion, unlearncanvas
from slug.methods import esd, uce
from slug.methods.pipeline_prompts import without
from slug.models import diffusion
from slug.models.clip import ALONE

STYLES, OBJECTS = ["Noto", "Blob_Old"], ["bell", "key", "palm_tree"]
PROMPTS = ["a bell", "a key"]


@pytest.fixture(scope="module")
def folder(tiny_clip, tmp_path_factory):
    """pipeline/ and its CLIP, hugging_face/. Only for reading."""
    out = tmp_path_factory.mktemp("sd")
    (out / "hugging_face").symlink_to(tiny_clip / "hugging_face")
    tiny.write_pipeline(out / "pipeline", tiny_clip / "hugging_face")
    asked = canvas_prompts.requests(STYLES, OBJECTS, report=[])
    images = tiny.load_pipeline(out).generate([r.prompt for r in asked], [r.seed for r in asked])
    tiny.write_classifiers(out / "classifiers", {"style": STYLES, "object": OBJECTS}, images)
    return out


@pytest.fixture(scope="module")
def pipeline(folder):
    return tiny.load_pipeline(folder)


# ------------------------------------------------------------------------------------------------------------ pictures


# ------------------------------------------------------------------------------------------------------------ protocol


def test_prompts_say_names_as_people_do():
    """Trap 7: underscores of folder names do not reach the pipeline."""
    assert canvas_prompts.Request("test", "Blob_Old", "palm_tree", 0).prompt == "An palm tree image in Blob Old style."
    assert canvas_prompts.Request("test", "", "iron_man", 0).prompt == "iron man"
    assert without(canvas_prompts.Request("validation", "Noto", "palm_tree", 0), "style") == "An palm tree image."
    assert without(canvas_prompts.Request("validation", "Noto", "palm_tree", 0), "object") == "An image in Noto style."


def test_requests_are_written_and_read_with_their_seeds(tmp_path):
    path = tmp_path / "prompts.csv"
    asked = canvas_prompts.requests(STYLES, OBJECTS)
    canvas_prompts.write_requests(path, asked)
    assert canvas_prompts.read_requests(path) == asked and len(asked) == 11 * 6
    with path.open() as f:
        assert [int(r["seed"]) for r in csv.DictReader(f)] == [r.seed for r in asked]
    assert len({r.seed for r in asked}) == len(asked)  # a noise of its own for every picture
    assert {r.seed % canvas_prompts.APART for r in asked if r.split == "test"} == set(canvas_prompts.TEST_SEEDS)
    shared = canvas_prompts.requests(STYLES, OBJECTS, shared=True)
    assert {r.seed for r in shared if r.split == "test"} == set(canvas_prompts.TEST_SEEDS) and len(shared) == len(asked)
    with pytest.raises(SlugError, match="below 10000"):
        canvas_prompts.requests(STYLES, OBJECTS, report=[10000])
    with pytest.raises(SlugError, match="both choose a step and report it"):
        canvas_prompts.requests(STYLES, OBJECTS, select=[0])
    path.write_text(path.read_text().replace("select,Noto,bell,1000", "select,Noto,bell,0"))
    with pytest.raises(SlugError, match="seed 0 stands in both splits"):
        canvas_prompts.read_requests(path)
    path.write_text(path.read_text().replace("select,Noto,bell,0", "select,Noto,bell,x"))
    with pytest.raises(SlugError, match="line 2"):
        canvas_prompts.read_requests(path)


def test_what_the_classifiers_do_not_know_is_not_asked_for(folder, tmp_path, monkeypatch, capfd):
    world = World(folder, tmp_path)
    given = ["a0_create_prompts_uncanvas", "--canvas", world.canvas, "--out", world.prompts]
    world.run(*given, "--classifiers", folder / "classifiers", "--style", "Noto", "Blob Old", "Noto")
    assert {r.style for r in canvas_prompts.read_requests(world.prompts)} == {"Noto", "Blob_Old"}
    world.prompts.unlink()
    (world.canvas / "Dali/bell").mkdir(parents=True)
    line = tiny.failure(monkeypatch, capfd, *given, "--classifiers", folder / "classifiers", *world.common)
    assert "does not know 'Dali'" in line and not world.prompts.exists()
    world.run(*given)
    assert "Dali" in {r.style for r in canvas_prompts.read_requests(world.prompts)}


def test_names_can_be_asked_for_without_styles(tmp_path):
    path = tmp_path / "prompts.csv"
    tiny.run("a0_create_prompts_uncanvas", "--names", "iron_man", "a dog", "--out", path, "--test-seeds", 0, 1, 2)
    asked = canvas_prompts.read_requests(path)
    assert {r.prompt for r in asked} == {"iron man", "a dog"} and len(asked) == 2 * 9
    assert canvas_prompts.names_of(asked) == {"style": [], "object": ["iron man", "a dog"]}


def test_scores_are_those_of_the_paper():
    asked = canvas_prompts.requests(["a", "b"], ["x", "y"], report=[0, 1], select=[])
    # Pictures in the order (a x, a y, b x, b y), seed 0 and then seed 1.
    right = {"style": torch.tensor([1, 0, 1, 1, 0, 0, 1, 0]).bool(), "object": torch.tensor([1, 1, 0, 1, 1, 1, 1, 1]).bool()}
    assert unlearncanvas.scores("style", "a", asked, right) == pytest.approx((1 - 1 / 4, 3 / 4, 3 / 4))
    # Of x: pictures 0, 2, 4, 6 are its own; the others' object accuracy is 4/4, their style accuracy 1/4.
    assert unlearncanvas.scores("object", "x", asked, right) == pytest.approx((1 - 3 / 4, 4 / 4, 1 / 4))


def test_an_unknown_name_is_no_wrong_answer():
    asked = [canvas_prompts.Request("test", "Noto", "dragon", 0)]
    with pytest.raises(SlugError, match="does not know 'dragon'"):
        unlearncanvas.correct(asked, {"object": torch.zeros(1, 3)}, {"object": OBJECTS})


class Painted:
    """A pipeline whose pictures tell a classifier what to say: {prompt: (style, object)} under the present edit."""

    def __init__(self, says):
        self.says, self.made = says, 0

    def generate(self, prompts, seeds, desc=None):
        self.made += len(prompts)
        return torch.tensor([self.says(p, s) for p, s in zip(prompts, seeds, strict=True)])


class Reader:
    """Says what was painted."""

    def __init__(self):
        self.labels = {"style": STYLES, "object": OBJECTS}

    def logits(self, images):
        return {k: F.one_hot(images[:, i], len(self.labels[k])).float() for i, k in enumerate(("style", "object"))}


def judge(says, **more):
    """A judge of Noto that was made where the pipeline was sound; afterwards pictures are what `says` tells."""
    asked = canvas_prompts.requests(STYLES, OBJECTS, report=[0], select=list(range(100, 160)), shared=True)
    made = unlearncanvas.Judge(
        Painted(sees), Reader(), asked, "style", "Noto", **({"wanted": 0.9, "keep": 0.9, "others": 1000} | more)
    )
    made.diffusion.says, made.diffusion.made = says, 0
    return made


def sees(prompt, seed):
    """What a sound pipeline paints."""
    return [prompt.find("Noto") < 0, next(i for i, o in enumerate(OBJECTS) if plain_name(o) in prompt)]


def no_bells(prompt, seed):
    """Noto is painted as Blob, and bells as keys in every style."""
    return [1, max(sees(prompt, seed)[1], 1)]


def partly(share):
    """Painters of whom the seeds of the first `share` of the judge's 60 forget Noto."""
    return lambda prompt, seed: [1 if seed - 100 < 60 * share else sees(prompt, seed)[0], sees(prompt, seed)[1]]


def test_a_judge_makes_the_others_pictures_only_where_something_is_forgotten():
    sound = judge(sees)
    assert (sound.start.UA, sound.start.IRA, sound.start.CRA) == (0, 1, 1) and sound.best is sound.start
    row = sound.step("l", 1.0, "l")
    assert (row.UA, row.margin) == (0, 1) and math.isnan(row.retain) and not row.forgets and sound.best is sound.start
    assert sound.diffusion.made == len(sound.own) == 180
    row = sound.step("l", 1.0, "l", log_all=True)
    assert (row.IRA, row.CRA, row.retain, row.kept) == (1, 1, 1, True)
    row = judge(no_bells, keep=0.6).step("l", 1.0, "l")
    assert row.UA == 1 and row.forgets and row.kept and row.IRA == 1 and pytest.approx(2 / 3) == row.CRA


def test_a_candidate_below_a_floor_is_left_early_and_goes_too_far():
    early = judge(no_bells)  # CRA falls to 2/3
    row = early.step("l", 1.0, "l")
    assert row.UA == 1 and math.isnan(row.retain) and row.kept is False and early.best is early.start
    assert len(early.own) < early.diffusion.made < len(early.own) + len(early.others)
    assert unlearncanvas.Step("l", 1.0, UA=0.3, kept=False).progress("robust") == 1
    assert unlearncanvas.Step("l", 1.0, UA=0.3, kept=True).progress("robust") == pytest.approx(1 / 3)
    assert unlearncanvas.Step("l", 1.0, UA=0.9, wanted=0.9).progress("robust") == 1
    judged = judge(no_bells, keep=2 / 3 - 1e-6)
    assert judged.step("l", 1.0, "l").kept and judged.best.UA == 1


def test_a_candidate_that_only_ties_is_left_where_it_retains_less():
    judged = judge(partly(1.0), keep=0.5)
    best = judged.step("l", 1.0, "l")
    assert judged.best is best and best.retain == 1
    judged.diffusion.says, judged.diffusion.made = no_bells, 0
    row = judged.step("m", 1.0, "m")
    assert row.UA == 1 and math.isnan(row.retain) and row.kept is None and judged.best is best
    assert judged.diffusion.made < len(judged.own) + len(judged.others)


def test_the_others_are_looked_at_wherever_a_candidate_may_be_the_furthest():
    judged = judge(partly(0.5))
    row = judged.step("l", 1.0, "l")
    assert row.UA == 0.5 and not row.forgets and row.retain == 1 and judged.best is row
    judged.diffusion.says, judged.diffusion.made = partly(0.25), 0
    assert math.isnan(judged.step("l", 1.0, "l").retain) and judged.best is row
    assert judged.diffusion.made == len(judged.own)


def test_a_candidate_far_behind_is_left_after_a_third_of_its_own_pictures():
    judged = judge(partly(1.0))
    best = judged.step("l", 1.0, "l")
    judged.diffusion.says, judged.diffusion.made = sees, 0
    row = judged.step("m", 1.0, "m")
    assert row.UA == 0 and judged.best is best and judged.diffusion.made == len(judged.own) / 3
    judged.diffusion.made = 0
    assert judged.step("m", 1.0, "m", log_all=True).retain == 1


def test_a_search_is_settled_where_all_that_was_retained_still_is():
    judged = judge(partly(0.5), keep=0.5)
    assert not judged.settled()  # nothing is lost, nor forgotten
    for says, wanted in ((partly(0.5), False), (no_bells, False), (partly(1.0), True)):
        judged.diffusion.says = says
        assert judged.step("l", 1.0, "l") is judged.best and judged.settled() == wanted


def test_the_others_are_drawn_from_all_cells():
    judged = judge(sees, others=30)
    assert len(judged.others) == 30 and {r.object for r in judged.others} == set(OBJECTS)
    assert judged.others == judge(sees).others[:30]


def test_few_pictures_on_the_brink_are_not_forgotten():
    brink = unlearncanvas.Step("l", 1.0, UA=1.0, margin=-1.0, margin_sd=1.0)
    assert brink.expected == pytest.approx(0.8413, abs=1e-4) and brink.reached == brink.expected and not brink.forgets
    assert brink._replace(margin=-2.0).forgets and brink._replace(margin_sd=0.0).forgets
    assert not brink._replace(margin=-2.0, UA=0.8).forgets  # counted or expected, the lower one


def test_the_winner_goes_furthest_within_bounds():
    rows = [
        unlearncanvas.Step("start", 0.0, UA=0.0, IRA=1.0, CRA=1.0, kept=True),
        unlearncanvas.Step("a", 1.0, UA=0.92, IRA=0.9, CRA=0.9, kept=True),
        unlearncanvas.Step("b", 1.0, UA=0.95, IRA=0.95, CRA=0.9, kept=True),
        unlearncanvas.Step("c", 1.0, UA=0.5, IRA=0.99, CRA=0.97, kept=True),
        unlearncanvas.Step("d", 1.0, UA=1.0, kept=False),
    ]
    assert unlearncanvas.Judge.winner(rows).layer == "b"  # both reach the 0.9 that is wanted, and it retains more
    assert unlearncanvas.Judge.winner([r._replace(wanted=0.93) for r in rows[:2] + rows[3:]]).layer == "a"
    assert unlearncanvas.Judge.winner(rows[3:]).layer == "c" and unlearncanvas.Judge.winner(rows[4:]) is None


# --------------------------------------------------------------------------------------------------------------- peers


@pytest.mark.parametrize(
    ("best", "tried", "inside"),
    [
        (0.012, [0.0032, 0.01, 0.032, 0.1, 1, 10], True),
        (1, [0.1, 1, 10], True),
        (1e9, [0.1, 1, 10, 32, 100, 320, 1000], False),
        (None, [0.1, 1, 10], None),
    ],
)
def test_a_peers_grid_grows_while_the_best_is_at_its_end(monkeypatch, best, tried, inside):
    """`best` is the weight that the judge likes most."""
    stage = tiny.stage("b2_unlearn_sd")
    monkeypatch.setitem(stage.GRIDS, "uce", (0.1, 1, 10))
    pipe = types.SimpleNamespace(weight=0)
    monkeypatch.setattr(stage, "applied", lambda model, edit: contextlib.nullcontext(vars(model).update(edit)))
    made = lambda pipeline, own, neutral, others, weights: ((f"weight {a:g}", 1, {"weight": a}) for a in weights)  # noqa: E731
    monkeypatch.setattr(stage.uce, "candidates", made)
    judged = types.SimpleNamespace(
        kind="style", name="Noto", own=[], others=[], best=unlearncanvas.Step("", 0.0, 0.0), gap=math.inf
    )

    def step(label, number, edited):
        row, gap = unlearncanvas.Step(label, number, 0.5), math.inf if best is None else abs(math.log(pipe.weight / best))
        if gap < judged.gap:
            judged.best, judged.gap = row, gap
        return row

    judged.step = step
    steps, edit, chosen, grid = stage.peer(types.SimpleNamespace(method="uce", seed=0), pipe, judged)
    assert grid == {"grid": tried, "inside_grid": inside} and len(steps) == len(tried)
    assert chosen == ([(f"weight {edit['weight']:g}", 1)] if best else []) and bool(edit) == bool(best)


def test_uce_is_the_least_squares_solution(pipeline):
    own, neutral = ["a bell in Noto", "a key in Noto"], ["a bell", "a key"]
    others = ["a dog", "a cat", "a key in Blob"]
    (label, _, edit), *_ = list(uce.candidates(pipeline, own, neutral, others, [2.0]))
    c, to, kept = (pipeline.embed(p).flatten(0, 1).double() for p in (own, neutral, others))
    for name, change in edit.items():
        w = pipeline.tensors[name].double()
        rows = [c * math.sqrt(2.0 / len(own)), kept / math.sqrt(len(others)), math.sqrt(uce.KEEP) * torch.eye(c.shape[1])]
        goal = [to @ w.T * math.sqrt(2.0 / len(own)), kept @ w.T / math.sqrt(len(others)), math.sqrt(uce.KEEP) * w.T]
        best = torch.linalg.lstsq(torch.cat([r.double() for r in rows]), torch.cat(goal)).solution.T
        assert torch.allclose(w + change.double(), best, atol=1e-5), name
    assert label == "weight 2" and set(edit) == set(uce.projections(pipeline))


def test_esd_trains_on_pictures_with_the_noise_of_their_timestep(pipeline, monkeypatch):
    """By the closed form of the noise levels; a sampler's own add_noise would give those of 999 - t."""
    own, levels, seen = ["a bell", "a key"], pipeline.pipe.scheduler.alphas_cumprod, []
    monkeypatch.setattr(esd, "EVERY", 6)
    hook = pipeline.pipe.unet.register_forward_pre_hook(
        lambda module, given: seen.append(given[:2]) if len(given) > 2 else None
    )
    list(esd.candidates(pipeline, own, [0, 1], 1e-4, 1))
    hook.remove()
    clean, rows = pipeline.latents(own, [0, 1]).float(), 0
    for x, t in seen:
        for one, time in zip(x, t, strict=True) if t.ndim else ():
            left = (one - levels[time].sqrt() * clean).flatten(1).norm(dim=1).min() / (1 - levels[time]).sqrt()
            assert left == pytest.approx(math.sqrt(one.numel()), rel=0.25), int(time)
            rows += 1
    assert rows >= 6 * esd.BATCH


def test_esd_moves_guesses_towards_its_target_and_leaves_the_pipeline_alone(pipeline, monkeypatch):
    monkeypatch.setattr(esd, "EVERY", 30)
    own = ["a bell", "a bell in Noto"]
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    (_, number, edit), *_ = list(esd.candidates(pipeline, own, [0, 1], 1e-2, 1))
    assert number == 30 and set(edit) == set(esd.trained(pipeline))
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})
    g = torch.Generator().manual_seed(5)
    x, t, unet = torch.randn(4, 4, 8, 8, generator=g), torch.full((4,), 500), pipeline.pipe.unet
    text, empty = (pipeline.embed([p] * 4) for p in (own[0], ""))
    with torch.no_grad():
        nothing, concept = unet(x, t, empty).sample, unet(x, t, text).sample
        target = nothing - esd.STRENGTH * (concept - nothing)
        with applied(pipeline, edit):
            assert F.mse_loss(unet(x, t, text).sample, target) < F.mse_loss(concept, target)


# ----------------------------------------------------------------------------------------------------- optimised tokens


def test_a_token_learns_to_draw_what_it_is_shown(pipeline):
    request = canvas_prompts.Request("test", "Noto", "key", 0)
    assert inversion.prompt_with(request, "style") == "An key image in * style."
    assert inversion.prompt_with(request, "object") == "An * image in Noto style."
    prompts, latents = ["a *"] * 4, pipeline.latents(["a bell"] * 4, [0, 1, 2, 3])
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    plain, other = pipeline.embed(["a *"]), pipeline.embed(["a key"])
    start, found = (inversion.learn(pipeline, prompts, latents, start="key", steps=n, rate=0.05) for n in (0, 60))
    weight = pipeline.pipe.text_encoder.get_input_embeddings().weight
    ids = pipeline.pipe.tokenizer("key", add_special_tokens=False).input_ids
    assert torch.allclose(start, weight[ids].mean(0)) and found.shape == start.shape and not found.requires_grad
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})
    losses = []
    for vector in (start, found):
        with inversion.spoken(pipeline, vector), torch.no_grad():
            assert not torch.allclose(pipeline.embed(["a *"]), plain) and torch.equal(pipeline.embed(["a key"]), other)
            g, total = torch.Generator().manual_seed(1), 0.0
            for t in range(50, 1000, 100):
                noise = torch.randn(latents.shape, generator=g)
                schedule = DDPMScheduler.from_config(pipeline.pipe.scheduler.config)
                x = schedule.add_noise(latents.float(), noise, torch.full((4,), t))
                text = inversion.states(pipeline, prompts)
                total += F.mse_loss(pipeline.pipe.unet(x, torch.full((4,), t), text).sample, noise).item()
            losses.append(total)
    assert losses[1] < losses[0] and torch.equal(pipeline.embed(["a *"]), plain)


# ---------------------------------------------------------------------------------------------------------------- LoRA


# ----------------------------------------------------------------------------------------------------------------- FID


def test_frechet_is_the_distance_of_two_normals():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(400, 5)), rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    plain = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert fid.frechet(a, b) == pytest.approx(plain, rel=1e-9)
    assert fid.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_fids_pictures_are_as_many_for_all_and_none_comes_twice():
    asked = canvas_prompts.requests(STYLES, OBJECTS, report=[0, 1], select=[])
    concepts = [("style", "Noto"), ("object", "bell"), ("object", "palm tree")]
    dealt = fid.deal(asked, concepts, 100, 70_000)
    wanted = [r for _, r in dealt]
    assert len(dealt) == len({(r.prompt, r.seed) for r in wanted}) == 100
    assert not any(canvas_prompts.shows(kind, name, [r])[0] for (kind, name), r in dealt)
    assert [r for r in wanted if r.seed < 70_000] == asked == wanted[: len(asked)]
    assert len({r.seed for r in wanted[len(asked) :]}) == 100 - len(asked)
    count = [sum(c == concept for c, _ in dealt) for concept in concepts]
    assert max(count) - min(count) <= 1
    alone = fid.deal(asked, [("style", "Noto")], 20, 70_000)
    assert len({r for _, r in alone}) == 20 and {r.style for _, r in alone} == {"Blob_Old"}
    assert fid.deal(asked[:1], [("style", "Noto")], 20, 70_000) == []


def test_fids_reference_is_of_what_is_asked_for(tmp_path):
    for style, thing, n in itertools.product(["Noto", "Blob_Old", "Other"], ["bell", "palm_tree"], range(3)):
        path = tmp_path / style / thing / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    wanted = [
        canvas_prompts.Request("test", "Blob Old", "palm tree", 0),
        canvas_prompts.Request("test", "Noto", "bell", 1),
    ]
    found = fid.reference(tmp_path, wanted, 100)
    assert {p.parts[-3:-1] for p in found} == {("Blob_Old", "palm_tree"), ("Noto", "bell")}
    assert len(found) == len(set(found)) == 6
    assert fid.reference(tmp_path, wanted, 4) == found[:4] and fid.reference(tmp_path, wanted, 6, seed=1) != found


def test_inceptions_pooling_leaves_the_padding_out(tmp_path):
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    weights = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    torch.save(weights, tmp_path / "inception.pth")
    network = fid.inception(tmp_path / "inception.pth")
    seen = {}
    for name in ("Mixed_5b", "Mixed_7c"):
        block = getattr(network.network, name)
        block.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        block.branch_pool.conv.register_forward_pre_hook(lambda _, args, name=name: seen.update({name + ".pool": args[0]}))
    images = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    assert network(images).shape == (2, 2048)
    average = F.avg_pool2d(seen["Mixed_5b"], 3, 1, 1, count_include_pad=False)
    assert torch.allclose(seen["Mixed_5b.pool"], average, atol=1e-5)
    assert torch.equal(seen["Mixed_7c.pool"], F.max_pool2d(seen["Mixed_7c"], 3, 1, 1))
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SlugError, match="no weights of FID's Inception"):
        fid.inception(tmp_path / "other.pth")


# -------------------------------------------------------------------------------------------------------------- stages


class World:
    """Folders of a run of all stages."""

    def __init__(self, sd, folder):
        self.sd, self.folder = sd, folder
        self.canvas, self.tars, self.results = folder / "canvas", folder / "tars", folder / "results"
        self.prompts, self.train = folder / "prompts.csv", folder / "train.tar"
        self.clip = ["--clip-model-id", sd / "hugging_face"]
        self.common = ["--result-dir", self.results, "--device", "cpu", "--workers", 0]
        how = ["--denoising-steps", 2, "--guidance", 2, "--generate-batch-size", 8]
        self.diffusion = ["--pipeline", sd / "pipeline", *self.clip, *how]
        for i, (style, thing) in enumerate(itertools.product(STYLES, OBJECTS)):
            cell = self.canvas / style / thing
            cell.mkdir(parents=True)
            for n in (1, 2, 3):
                (cell / f"{n}.jpg").write_bytes(tiny.jpeg(10 * i + n, size=16))
        tiny.write_pairs(self.train, ["a dog", "a cat", "Noto", "tree", "a key", "a house", "a car", "a boat"])

    def run(self, stage, *more):
        tiny.run(stage, *more, *self.common)

    def prepare(self):
        self.run("a0_create_prompts_uncanvas", "--canvas", self.canvas, "--out", self.prompts, "--test-seeds", 0, 1)
        self.run("a0_create_tar_ucanvas", "--canvas", self.canvas, "--tar-dir", self.tars)

    def gradients(self, *names, method="calc_grad"):
        data = ["--unlearn-method", method, "--tar-dir", self.tars, "--train-data", self.train, "--batch-size", 4]
        self.run("b1_compute_grad", "--celeb-name", *names, *self.clip, *data)

    def b2(self, *more):
        given = ["--prompts", self.prompts, "--classifiers", self.sd / "classifiers", "--tar-dir", self.tars]
        given += ["--train-data", self.train, "--batch-size", 4, "--evaluations", 3]
        # The untrained classifier sees a palm tree nowhere: only a margin that grows makes a step better than none.
        given += ["--wanted", 0.95, "--keep", 0.1]
        return ["b2_unlearn_sd", *self.diffusion, *given, *more]

    def b3(self, *more):
        given = ["--prompts", self.prompts, "--classifiers", self.sd / "classifiers", "--reference", self.canvas]
        return ["b3_eval_uncanvas", *self.diffusion, *given, *more]


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """All stages, for one style and one object, and the peers for the style."""
    world = World(folder, tmp_path_factory.mktemp("run"))
    world.prepare()
    world.gradients("Noto", "palm_tree")
    world.run(*world.b2("--style", "Noto", "--object", "palm_tree"))
    world.run(*world.b2("--style", "Noto", "--method", "uce"))
    world.run(*world.b3())
    return world


def test_forget_sets_out_of_unlearncanvas_have_its_names_and_captions(done):
    with TarMembers(done.tars / "Noto.tar") as tar:
        members = {n: tar[n] for n in tar}
    assert set(members) == {f"{o}_Noto_{n}.{end}" for o in OBJECTS for n in (1, 2, 3) for end in ("jpg", "txt")}
    assert members["palm_tree_Noto_2.txt"] == b"A palm tree image in Noto style."
    with TarMembers(done.tars / "palm_tree.tar") as tar:
        assert {n.split(".")[0] for n in tar} == {f"palm_tree_{s}_{n}" for s in STYLES for n in (1, 2, 3)}


def test_broken_pictures_are_left_out_and_a_good_tar_is_kept(folder, tmp_path, capfd, monkeypatch):
    world = World(folder, tmp_path)
    (world.canvas / "Noto" / "bell" / "1.jpg").write_bytes(b"no picture")
    flags = ["--canvas", world.canvas, "--tar-dir", world.tars, "--max-count", 4]
    world.run("a0_create_tar_ucanvas", *flags, "--style", "Noto")
    assert "Noto: 3 pictures, 1 broken" in "".join(capfd.readouterr())
    before = (world.tars / "Noto.tar").read_bytes()
    world.run("a0_create_tar_ucanvas", *flags, "--style", "Noto")
    assert (world.tars / "Noto.tar").read_bytes() == before
    assert "no style 'Dali'" in tiny.failure(monkeypatch, capfd, "a0_create_tar_ucanvas", *flags, "--style", "Dali")


def test_b1_takes_the_text_towers_gradient_as_a1_does(done, folder, tmp_path):
    clip = models.load(clip_model_id=str(folder / "hugging_face"))
    data = ["--tar-dir", done.tars, "--train-data", done.train, "--batch-size", 4, "--celeb-name", "Noto", "palm_tree"]
    tiny.run("a1_compute_grad", *data, *done.clip, "--result-dir", tmp_path, "--device", "cpu", "--workers", 0)
    for side in ("forget_grads", "train_grads"):
        path = f"grads/Noto_{clip.tag}/{side}.pt"
        text, both = (torch.load(r / path, weights_only=True) for r in (done.results, tmp_path))
        assert set(text) == {n for n in both if clip.tower(n) == "language"}
        assert all(torch.allclose(g, both[n], atol=1e-7) for n, g in text.items())


def test_the_step_logged_is_the_step_evaluated(done, folder):
    """Trap 7: the kept edit, applied anew, gives the figures of its row, with the seeds that stand beside it."""
    record = json.loads((done.results / "sd/pipeline-slug-style-Noto.json").read_text())
    rows = pd.read_csv(done.results / "sd/pipeline-slug-style-Noto-steps.csv")
    ((layer, step),) = record["chosen"]
    row = rows[(rows["layer"] == layer) & np.isclose(rows["step"], step)].iloc[0]
    pipe = diffusion.load(
        str(folder / "pipeline"), models.load(clip_model_id=str(folder / "hugging_face")), steps=2, guidance=2
    )
    edit, _ = deltas.read(done.results / "sd" / record["delta"])
    asked = [r for r in canvas_prompts.read_requests(done.prompts) if r.split == "validation"]
    assert {int(s) for s in row["seeds"].split()} == {r.seed for r in asked if r.style == "Noto"}
    classifiers = canvas_classifiers.load_classifiers(folder / "classifiers")
    with applied(pipe, edit):
        images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
    right = unlearncanvas.correct(asked, classifiers.logits(images), classifiers.labels)
    found = unlearncanvas.scores("style", "Noto", asked, right)
    assert pytest.approx(row["UA"]) == found.UA
    if not np.isnan(row["IRA"]):
        assert pytest.approx((row["IRA"], row["CRA"])) == (found.IRA, found.CRA)
    group = pipe.clip.group(layer)
    assert set(edit) == set(group)
    first = layers.first_step([pipe.clip.parameters[n] for n in group], [t / step for t in edit.values()])
    assert min(rows["step"][1:]) <= 10 * first


def test_tables_hold_what_the_report_pictures_say(done, folder):
    table = pd.read_csv(done.results / "uncanvas/table.csv")
    assert list(table.columns) == schema.CANVAS_COLUMNS
    rows = set(itertools.product(("original", "slug", "slug_lora"), ("Noto", "palm tree"))) | {("uce", "Noto")}
    assert set(zip(table["method"], table["name"], strict=True)) == rows
    asked = [r for r in canvas_prompts.read_requests(done.prompts) if r.split == "test"]
    classifiers = canvas_classifiers.load_classifiers(folder / "classifiers")
    pictures = next(p for p in done.results.glob("uncanvas/pictures/pipeline-slug-style-Noto-*") if "-lora-" not in p.name)
    images = diffusion.read_pictures(sorted(pictures.iterdir()))
    assert len(images) == len(asked) == 12
    found = unlearncanvas.scores(
        "style", "Noto", asked, unlearncanvas.correct(asked, classifiers.logits(images), classifiers.labels)
    )
    row = table[(table["method"] == "slug") & (table["name"] == "Noto")].iloc[0]
    assert tuple(row[["UA", "IRA", "CRA"]]) == pytest.approx(tuple(found), abs=1e-5)
    published = pd.read_csv(done.results / "uncanvas/csv/style.csv")
    assert list(published.columns) == ["Unlearn Name", "Step Size", "UA", "IRA", "CRA"]
    assert len(pd.read_csv(done.results / "uncanvas/csv/class.csv")) == 1
    assert {p.suffix for p in done.results.glob("uncanvas/tradeoff.*")} == {".pdf", ".png"}
    assert table["FID"].isna().all()
    assert "1000 different pictures a side, and the reference has 9 of" in (done.results / "uncanvas/report.md").read_text()
    assert len(list(done.results.glob("uncanvas/sheet-*.png"))) == 3


def test_fid_compares_as_many_different_pictures_on_both_sides(done, folder, tmp_path, monkeypatch):
    """The figures are those of pictures that are made anew: the same prompts and seeds for the original and the others."""
    monkeypatch.setattr(fid, "FEWEST", 9)
    done.run(*done.b3("--out", tmp_path))
    table = pd.read_csv(tmp_path / "table.csv").set_index(["method", "name"])
    requests = canvas_prompts.read_requests(done.prompts)
    dealt = fid.deal([r for r in requests if r.split == "test"], [("style", "Noto")], 12, 60_000)[:9]  # 9 in the reference
    assert {r.style for _, r in dealt} == {"Blob_Old"} and len({r for _, r in dealt}) == 9
    assert sum(r in requests for _, r in dealt) == 6  # the others are FID's own
    real = decode([str(p) for p in fid.reference(done.canvas, [r for _, r in dealt], 9)], unlearncanvas.resize(16))[0]
    classifiers, pipe = canvas_classifiers.load_classifiers(folder / "classifiers"), tiny.load_pipeline(folder)
    pipe.steps, pipe.guidance = 2, 2.0
    for method in ("original", "slug", "uce"):
        file = done.results / f"sd/pipeline-{method}-style-Noto.delta.safetensors"
        with contextlib.nullcontext() if method == "original" else applied(pipe, deltas.of_model(pipe, file)):
            images = pipe.generate([r.prompt for _, r in dealt], [r.seed for _, r in dealt])
        wanted = fid.frechet(classifiers.features(images), classifiers.features(real))
        assert table.loc[(method, "Noto"), "FID"] == pytest.approx(wanted, rel=1e-2)
    assert table["FID"].nunique() == 3 and table.loc[("slug_lora", "Noto"), "FID"] != table.loc[("slug", "Noto"), "FID"]
    assert table.loc[("slug", "palm tree"), "FID"] == table.loc[("slug", "Noto"), "FID"]  # one figure a method
    assert "of 9 different pictures a side" in (tmp_path / "report.md").read_text()
    for given in ({"no_fid": True, "judge": "classifiers"}, {"no_fid": False, "judge": "clip"}):
        left_out = tiny.stage("b3_eval_uncanvas").fid_requests(types.SimpleNamespace(**given), [], requests, 0)
        assert left_out == ([], [], "FID was left out (--no-fid, --judge clip).")


def test_rounds_that_end_with_their_first_layer_are_drawn_as_it():
    drawn_as = tiny.stage("b3_eval_uncanvas").drawn_as
    first = {"method": "slug_w", "kind": "style", "name": "Noto", "chosen": [["a", 1.0]]}
    records = [first, first | {"method": "slug_w_rounds"}, first | {"method": "slug_w_rounds", "name": "Blob"}]
    records += [first | {"method": "slug_w", "name": "Blob", "chosen": [["b", 1.0]]}, first | {"method": "slug_rounds"}]
    assert [drawn_as(r, records) is records[i] for r, i in zip(records, (0, 0, 2, 3, 4), strict=True)] == [True] * 5


def test_the_candidates_are_written_beside_the_tables(done):
    found = pd.read_csv(done.results / "uncanvas/candidates.csv")
    for stem in ("slug-style-Noto", "slug-object-palm_tree", "uce-style-Noto"):
        steps = pd.read_csv(done.results / f"sd/pipeline-{stem}-steps.csv")
        method, kind, name = stem.replace("_", " ").split("-")
        mine = found[(found["method"] == method) & (found["kind"] == kind) & (found["name"] == name)]
        columns = ["layer", "step", "UA", "IRA", "CRA"]
        pd.testing.assert_frame_equal(mine[columns].reset_index(drop=True), steps[columns], rtol=1e-5)
    settings = json.loads((done.results / "uncanvas/settings.json").read_text())
    (uce_record,) = (r for r in settings["records"] if r["method"] == "uce")
    whole = json.loads((done.results / "sd/pipeline-uce-style-Noto.json").read_text())
    seeds = pd.read_csv(done.results / "sd/pipeline-uce-style-Noto-steps.csv")["seeds"].iloc[0]
    assert settings["common"] | uce_record == whole | {"seeds": seeds}


def test_a_style_and_an_object_are_forgotten_together(done, folder, tmp_path):
    """b5's figures are those of a pipeline folder that carries both deltas, judged anew."""
    paths = [done.results / f"sd/pipeline-slug-{c}.delta.safetensors" for c in ("style-Noto", "object-palm_tree")]
    (tmp_path / "README.md").write_text("<!-- uncanvas-multi -->\n<!-- /uncanvas-multi -->\n")
    given = ["--prompts", done.prompts, "--classifiers", done.sd / "classifiers", "--style", "Noto", "--object", "palm_tree"]
    done.run("b5_unlearn_multi", *done.diffusion, *given, "--out", tmp_path, "--readme", tmp_path / "README.md")
    table = pd.read_csv(tmp_path / "multi.csv")
    assert set(table["count"]) == {2} and len(table) == 4 and not (done.results / "uncanvas/multi.csv").exists()

    for part in ("pipeline", "hugging_face"):
        deltas.apply(paths, folder / part, tmp_path / part)
    asked = [r for r in canvas_prompts.read_requests(done.prompts) if r.split == "test"]
    classifiers = canvas_classifiers.load_classifiers(folder / "classifiers")
    for method, source in (("original", folder), ("sum", tmp_path)):
        clip = models.load(clip_model_id=str(source / "hugging_face"))
        pipe = diffusion.load(str(source / "pipeline"), clip, steps=2, guidance=2, batch_size=8)
        images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
        right = unlearncanvas.correct(asked, classifiers.logits(images), classifiers.labels)
        rest = torch.tensor([r.style == "Blob_Old" and r.object != "palm_tree" for r in asked])
        shares = {kind: right[kind][rest].float().mean().item() for kind in canvas_prompts.KINDS}
        for kind, name in (("style", "Noto"), ("object", "palm tree")):
            own = torch.tensor(canvas_prompts.shows(kind, name, asked))
            row = table[(table["method"] == method) & (table["name"] == name)].iloc[0]
            assert (row["n_own"], row["n_rest"]) == (int(own.sum()), 4)
            ua = 1 - right[kind][own].float().mean().item()
            found = (row["UA"], row["IRA"], row["CRA"])
            assert found == pytest.approx((ua, shares[kind], shares[canvas_prompts.OTHER[kind]]), abs=1e-5)
            assert row["UA_low"] <= row["UA"] <= row["UA_high"]
    after = table[table["method"] == "sum"].iloc[0]
    change = after["IRA"] - table[table["method"] == "original"].iloc[0]["IRA"]
    assert after["IRA_change"] == pytest.approx(change, abs=1e-5)
    text = (tmp_path / "multi.md").read_text()
    assert "| the styles of 2 concepts | Noto" in text and "| the objects of 2 concepts | palm tree" in text
    assert text in (tmp_path / "README.md").read_text() and not tiny.left_over(tmp_path)


def test_styles_objects_and_both_are_groups_of_their_own():
    stage = tiny.stage("b5_unlearn_multi")
    styles, objects = ([(kind, f"{kind} {i}") for i in range(n)] for kind, n in (("style", 3), ("object", 2)))
    assert stage.groups(styles) == [styles[:2], styles]
    assert stage.groups(styles + objects) == [styles[:2], styles, objects, styles + objects]
    assert stage.groups(styles[:1] + objects[:1]) == [styles[:1] + objects[:1]]


def test_concepts_that_cannot_be_forgotten_together_are_said_in_one_line(done, monkeypatch, capfd):
    def fails(*more):
        given = ["--prompts", done.prompts, "--classifiers", done.sd / "classifiers"]
        return tiny.failure(monkeypatch, capfd, "b5_unlearn_multi", *done.diffusion, *given, *more, *done.common)

    assert "give two styles or objects" in fails("--style", "Noto")
    assert "no record of slug for the object bell" in fails("--style", "Noto", "--object", "bell")
    assert "no record of esd for the style Noto" in fails("--style", "Noto", "--object", "palm_tree", "--method", "esd")
    assert "every prompt shows one of Noto, Blob_Old" in fails("--style", *STYLES)


def test_tokens_are_learned_for_the_original_and_for_every_edit(done, monkeypatch, capfd):
    given = ["--prompts", done.prompts, "--classifiers", done.sd / "classifiers", "--style", "Noto", "--training-steps", 2]
    more = [*done.diffusion, *given, "--object", "bell", *done.common]
    assert "no record of bell in" in tiny.failure(monkeypatch, capfd, "b4_optimised_tokens", *more)
    done.run("b4_optimised_tokens", *done.diffusion, *given)
    table = pd.read_csv(done.results / "uncanvas/tokens.csv")
    assert set(table["method"]) == {"original", "slug", "uce"} and set(table["n"]) == {6}
    figures = pd.read_csv(done.results / "uncanvas/table.csv").query("name == 'Noto'").set_index("method")
    for row in table.to_dict("records"):
        assert row["by_name"] / row["n"] == pytest.approx(1 - figures.loc[row["method"], "UA"], abs=1e-5)


def test_what_is_valid_is_kept_and_pictures_are_made_once(done, monkeypatch):
    def no(*_, **__):
        raise AssertionError("made again")

    pictures = done.results / "uncanvas/pictures"
    before = {p: p.stat().st_mtime_ns for p in pictures.rglob("*.png")}
    gone = next(pictures.glob("*-original-*"))
    shutil.rmtree(gone)
    done.run(*done.b3("--part", 2, 2))  # the original is of the first part
    assert not gone.exists() and len(list(pictures.iterdir())) > 1
    done.run(*done.b3("--part", 1, 2))
    after = {p: p.stat().st_mtime_ns for p in pictures.rglob("*.png")}
    assert set(after) == set(before) and {p for p in before if before[p] != after[p]} == set(gone.iterdir())
    monkeypatch.setattr(diffusion.Diffusion, "_run", no)
    done.run(*done.b2("--style", "Noto", "--object", "palm_tree"))
    done.run(*done.b3())


def test_the_delta_goes_into_a_pipeline_folder_and_out_again(done, folder, tmp_path):
    delta = done.results / "sd/pipeline-slug-style-Noto.delta.safetensors"
    tiny.run("a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", folder / "pipeline", "--out", tmp_path / "edited")
    tiny.run(
        "a2_unlearn_slug", "revert", "--delta", delta.name, "--model-dir", tmp_path / "edited", "--out", tmp_path / "back"
    )
    import diffusers

    found = ModelCard.load(tmp_path / "edited" / cards.FILE)
    assert "without Noto" in found.text and f"| `{delta.name}` | Noto |" in found.text and "UA " in found.text
    adapter = ModelCard.load(done.results / "sd/pipeline-slug-style-Noto-lora" / cards.FILE)
    assert adapter.data.base_model == "pipeline" and f"| `{delta.name}` | Noto |" in adapter.text
    edited = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "edited")
    original = tiny.load_pipeline(folder)
    with applied(original, deltas.read(delta)[0]):
        states, _ = edited.encode_prompt(PROMPTS, "cpu", 1, False)
        assert torch.allclose(states, original.embed(PROMPTS), atol=1e-6)
    weights = [folder / "pipeline", tmp_path / "back"]
    assert len({files.file_hash(w / "text_encoder/model.safetensors") for w in weights}) == 1
    assert not (tmp_path / "back" / deltas.EDITS).exists()
    names = [{str(p.relative_to(w)) for p in w.rglob("*")} for w in weights]
    assert names[0] == names[1]


def test_the_delta_is_small_and_refuses_another_pipeline(done, folder, tmp_path, monkeypatch, capfd):
    delta = done.results / "sd/pipeline-slug-style-Noto.delta.safetensors"
    edit, _ = deltas.read(delta)
    assert delta.stat().st_size <= 2 * sum(4 * t.numel() for t in edit.values()) + 16_000
    tiny.write_random_clip(tmp_path, seed=3)
    tiny.write_pipeline(tmp_path / "other", tmp_path / "hugging_face")
    arguments = ["apply", "--delta", delta, "--model-dir", tmp_path / "other", "--out", tmp_path / "out"]
    assert "made for other weights" in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *arguments)


def test_a_pipeline_makes_its_own_forget_set_and_goes_on_where_it_stopped(folder, tmp_path, monkeypatch):
    world = World(folder, tmp_path)
    flags = [*world.diffusion, "--tar-dir", world.tars, "--image-dir", tmp_path / "pictures", "--count", 20]
    arguments = ["b0_generate_forget_set", *flags, "--object", "iron_man"]
    generate, made = diffusion.Diffusion.generate, []

    def stop(self, prompts, seeds, desc=None):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(prompts)
        return generate(self, prompts, seeds, desc)

    monkeypatch.setattr(diffusion.Diffusion, "generate", stop)
    with pytest.raises(KeyboardInterrupt):
        world.run(*arguments)
    assert not (world.tars / "iron_man.tar").exists()
    counted = []
    monkeypatch.setattr(diffusion.Diffusion, "generate", lambda *a: counted.append(len(a[1])) or generate(*a))
    world.run(*arguments)
    assert sum(counted) == 12
    with TarMembers(world.tars / "iron_man.tar") as tar:
        assert len(tar) == 40 and tar["iron_man_1.txt"] == b"a photo of iron man"
    monkeypatch.undo()
    before = (world.tars / "iron_man.tar").read_bytes()
    world.run(*arguments, "--force")
    assert (world.tars / "iron_man.tar").read_bytes() == before and len(
        list((tmp_path / "pictures/iron_man").iterdir())
    ) == 20


@pytest.mark.parametrize("method", ["slug", "slug_w", "slug_ws"])
def test_rounds_go_on_from_one_layer_with_new_gradients_and_clip_can_be_the_judge(method, done, monkeypatch):
    stage = tiny.stage("b2_unlearn_sd")
    kind = method.replace("slug", "calc_grad")
    done.gradients("Noto", "palm_tree", method=kind)
    anew, taken = stage.gradients_at, []
    monkeypatch.setattr(stage, "gradients_at", lambda *a: taken.append(a) or anew(*a))
    flags = ["--style", "Noto", "--keep", 0.1, "--select", "clip", "--wanted", 0.1, "--rounds-wanted", 1.0]
    done.run(*done.b2(*flags, "--method", method, "--rounds", 2, "--force"))
    one, two = (
        json.loads((done.results / f"sd/pipeline-{m}-style-Noto.json").read_text()) for m in (method, f"{method}_rounds")
    )
    assert two["method"] == f"{method}_rounds" and two["chosen"][:1] == one["chosen"] and len(two["chosen"]) <= 2
    assert len(taken) == (1 if one["chosen"] and one["winner_validation"]["UA"] < 1 else 0)
    grads = next((done.results / "grads").glob("Noto_*")) / gradient_files.file_name("forget", kind)
    grads = torch.load(grads, weights_only=True)
    if taken:  # the model has its own weights again: the gradients are those of b1
        again, _ = anew(*taken[0])
        assert all((t - grads[n]).norm() <= 1e-4 * t.norm() for n, t in again.items())
    first, both = (deltas.read(done.results / "sd" / r["delta"])[0] for r in (one, two))
    layer = one["chosen"][0][0] if one["chosen"] else None
    if layer in first:  # a layer alone
        assert torch.allclose(first[layer], one["chosen"][0][1] * grads[layer], rtol=1e-4, atol=1e-7)
    assert set(first) <= set(both)
    if len(two["chosen"]) == 1:
        assert tiny.same_tensors(first, both)
    assert two["seconds"] >= one["seconds"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.prompts.unlink(), "prompts not found"),
        (lambda w: w.prompts.write_text("split,style\nvalidation,Noto\n"), "short row"),
        (lambda w: (w.tars / "Noto.tar").unlink(), "forget set not found"),
    ],
)
def test_what_is_missing_is_said_in_one_line(folder, tmp_path, monkeypatch, capfd, change, said):
    world = World(folder, tmp_path)
    world.prepare()
    change(world)
    line = tiny.failure(monkeypatch, capfd, *world.b2("--style", "Noto"), *world.common)
    assert said in line


def test_missing_gradients_and_records_name_the_stage(folder, tmp_path, monkeypatch, capfd):
    world = World(folder, tmp_path)
    world.prepare()
    line = tiny.failure(monkeypatch, capfd, *world.b2("--style", "Noto"), *world.common)
    assert "b1_compute_grad.py" in line
    assert "b2_unlearn_sd.py" in tiny.failure(monkeypatch, capfd, *world.b3(), *world.common)


def test_names_without_classifiers_get_report_figures_and_a_sheet(folder, tmp_path):
    world = World(folder, tmp_path)
    world.run("a0_create_prompts_uncanvas", "--names", *OBJECTS, "--test-seeds", 0, 1, "--out", world.prompts)
    flags = ["--tar-dir", world.tars, "--image-dir", tmp_path / "pictures", "--count", 6]
    world.run("b0_generate_forget_set", *world.diffusion, *flags, "--object", "bell")
    world.gradients("bell")
    world.run(*world.b2("--object", "bell", "--select", "clip", "--evaluations", 1, "--fronts", 1))
    nowhere = ["--classifiers", tmp_path / "none", "--reference", tmp_path / "none"]
    world.run(*world.b3("--judge", "clip", *nowhere))
    table = pd.read_csv(world.results / "uncanvas/table.csv").set_index("method")
    assert set(table["name"]) == {"bell"} and table[["CRA", "FID"]].isna().all(axis=None)
    pipe = tiny.load_pipeline(folder)
    pipe = diffusion.load(str(folder / "pipeline"), pipe.clip, steps=2, guidance=2)
    judge = canvas_classifiers.ClipClassifiers(pipe.clip, {"style": [], "object": ["bell", "key", "palm tree"]})
    asked = [r for r in canvas_prompts.read_requests(world.prompts) if r.split == "test"]
    edit, _ = deltas.read(world.results / "sd/pipeline-slug-object-bell.delta.safetensors")
    for method, change in (("original", {}), ("slug", edit)):
        with applied(pipe, change):
            images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
        found = unlearncanvas.scores(
            "object", "bell", asked, unlearncanvas.correct(asked, judge.logits(images), judge.labels)
        )
        assert tuple(table.loc[method, ["UA", "IRA"]]) == pytest.approx((found.UA, found.IRA), abs=1e-5)
    assert (world.results / "uncanvas/sheet-pipeline-slug-object-bell.png").is_file()
    text = (world.results / "uncanvas/report.md").read_text()
    assert "zero-shot among bell, key, palm tree; 2 pictures of each" in text and "nan" not in text


def test_a_run_does_not_overwrite_another_ones_records(done, monkeypatch, capfd):
    record = done.results / "sd/pipeline-slug-style-Noto.json"
    before = record.read_bytes()
    others = done.folder / "other.csv"
    others.write_text(done.prompts.read_text().replace(",1000", ",2000"))
    mine = json.loads(before)["settings"]["select"]  # another test may have made it anew
    other = "clip" if mine == "classifiers" else "classifiers"
    for more in (["--select", other], ["--select", mine, "--prompts", others], ["--select", other, "--rounds", 2]):
        line = tiny.failure(monkeypatch, capfd, *done.b2("--style", "Noto", *more), *done.common)
        # Of several rounds, theirs is looked at too: it is there where another test made it.
        names = [record.name, *([record.name.replace("-slug-", "-slug_rounds-")] if "--rounds" in more else [])]
        assert any(f"{n} is of other prompts or another judge" in line for n in names) and "--result-dir" in line
    assert record.read_bytes() == before
    line = tiny.failure(monkeypatch, capfd, *done.b3("--prompts", others), *done.common)
    assert "no record of pipeline with these prompts" in line
    given = ["--prompts", others, "--classifiers", done.sd / "classifiers", "--style", "Noto"]
    line = tiny.failure(monkeypatch, capfd, "b4_optimised_tokens", *done.diffusion, *given, *done.common)
    assert "no record of pipeline with these prompts" in line


@pytest.mark.parametrize(
    "method", ["slug", "slug_w", "slug_ws", "slug_rounds", "slug_w_rounds", "slug_ws_rounds", "uce", "esd"]
)
def test_every_method_of_pipelines_has_words_on_cards(method):
    assert cards.made_by(method)


def test_rounds_count_what_their_first_layer_took(folder, tmp_path):
    """A method's candidates are all that were judged for it, and its memory the most that it ever held."""
    world = World(folder, tmp_path)
    world.prepare()
    world.gradients("Noto")
    world.run(*world.b2("--style", "Noto", "--rounds", 2))
    world.run(*world.b3())
    table = pd.read_csv(world.results / "uncanvas/table.csv").query("name == 'Noto'").set_index("method")
    one, two = (
        json.loads((world.results / f"sd/pipeline-{m}-style-Noto.json").read_text()) for m in ("slug", "slug_rounds")
    )
    assert table.loc["slug", "n_candidates"] == one["n_candidates"] > 0
    assert table.loc["slug_rounds", "n_candidates"] == one["n_candidates"] + two["n_candidates"]
    assert table.loc["slug_rounds", "peak_mem_mb"] >= table.loc["slug", "peak_mem_mb"]
    text = (world.results / "uncanvas/report.md").read_text()
    assert "without what SLUG takes of the retain set once for all of them: slug " in text


def test_a_record_is_of_the_judge_that_chose_it(done, folder, tmp_path, monkeypatch):
    """Other classifiers at the same place: chosen anew."""
    world = World(folder, tmp_path)
    world.prepare()
    shutil.copytree(done.results / "grads", world.results / "grads", symlinks=True)
    world.sd = tmp_path
    shutil.copytree(folder / "classifiers", tmp_path / "classifiers")
    arguments = world.b2("--style", "Noto", "--method", "uce")
    world.run(*arguments)
    record = world.results / "sd/pipeline-uce-style-Noto.json"
    first = record.read_bytes()
    world.run(*arguments)
    assert record.read_bytes() == first
    weights = load_file(tmp_path / "classifiers/style.safetensors")
    save_file(
        {n: t * 1.5 if t.is_floating_point() else t for n, t in weights.items()}, tmp_path / "classifiers/style.safetensors"
    )
    world.run(*arguments)
    assert json.loads(record.read_text())["judge_hash"] != json.loads(first)["judge_hash"]


@pytest.mark.parametrize(
    "more, said",
    [
        (["--part", 1, 0], "--part 1 0: the first is a number from 1 to the second"),
        (["--part", 0, 2], "--part 0 2: the first is a number from 1 to the second"),
        (["--method", "uce", "--rounds", 2], "--rounds is of SLUG; uce has none"),
        (["--layer", "visual.proj"], "--layer and --step go together"),
        (["--layer", "visual.proj", "--step", 1.0, "--rounds", 2], "are of one step of SLUG"),
        (["--layer", "visual.proj", "--step", 1.0, "--result-dir", "EMPTY"], "no gradients at"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(done, tmp_path, monkeypatch, capfd, more, said):
    given = [tmp_path if word == "EMPTY" else word for word in [*done.common, *more]]
    assert said in tiny.failure(monkeypatch, capfd, *done.b2("--style", "Noto"), *given)


@pytest.mark.parametrize("end", ["", ALONE])
def test_a_known_step_is_taken_without_a_search(done, tmp_path, monkeypatch, capfd, end):
    shutil.copytree(done.results / "grads", tmp_path / "grads", symlinks=True)
    layer = f"text_model.encoder.layers.0.mlp.fc1.weight{end}"
    arguments = [*done.b2("--style", "Noto", "--step", 12.5), *done.common, "--result-dir", tmp_path]
    tiny.run(*arguments, "--layer", layer)
    record = json.loads((tmp_path / "sd/pipeline-slug-style-Noto.json").read_text())
    assert record["chosen"] == [[layer, 12.5]] and record["n_candidates"] == 1
    grads = torch.load(next((tmp_path / "grads").glob("Noto_*/forget_grads.pt")), weights_only=True)
    edit, _ = deltas.read(tmp_path / "sd" / record["delta"])
    names = [layer.removesuffix(ALONE)] + ([] if end else ["text_model.encoder.layers.0.mlp.fc2.weight"])
    assert set(edit) == set(names) and all(torch.allclose(edit[n], 12.5 * grads[n], rtol=1e-3, atol=1e-6) for n in names)
    assert "is no layer that SLUG may edit" in tiny.failure(monkeypatch, capfd, *arguments, "--layer", "visual.proj")


def test_a_concept_that_the_classifiers_do_not_know_is_said_in_one_line(folder, tmp_path, monkeypatch, capfd):
    world = World(folder, tmp_path)
    world.prepare()
    world.prompts.write_text(world.prompts.read_text().replace("Noto", "Rococo"))
    line = tiny.failure(monkeypatch, capfd, *world.b2("--style", "Rococo", "--method", "uce"), *world.common)
    assert "Rococo" in line
    (tmp_path / "left_out.json").write_text("[]")
    flags = ["--canvas", world.canvas, "--out", tmp_path / "p.csv", "--leave-out", tmp_path / "left_out.json"]
    line = tiny.failure(monkeypatch, capfd, "a0_create_prompts_uncanvas", *flags, *world.common)
    assert "has no list left_out of prompts" in line


def test_a_tar_of_other_pictures_is_not_taken_for_a_styles(folder, tmp_path, monkeypatch, capfd):
    world = World(folder, tmp_path)
    tiny.write_pairs(world.tars / "Noto.tar", ["a Noto drawing of a bell"])
    flags = ["--canvas", world.canvas, "--tar-dir", world.tars, "--style", "Noto"]
    line = tiny.failure(monkeypatch, capfd, "a0_create_tar_ucanvas", *flags, *world.common)
    assert "is damaged or of other pictures" in line
    world.run("a0_create_tar_ucanvas", *flags, "--force")
    world.run("a0_create_tar_ucanvas", *flags)


def test_a_forget_set_from_elsewhere_is_not_the_pipelines_own(folder, tmp_path, monkeypatch, capfd):
    world = World(folder, tmp_path)
    tiny.write_pairs(world.tars / "bell.tar", ["a bell", "A bell image in Noto style."])
    before = (world.tars / "bell.tar").read_bytes()
    flags = [*world.diffusion, "--tar-dir", world.tars, "--image-dir", tmp_path / "pictures", "--count", 2]
    arguments = ["b0_generate_forget_set", *flags, "--object", "bell"]
    line = tiny.failure(monkeypatch, capfd, *arguments, *world.common)
    assert "is no forget set of this pipeline and these prompts" in line and (world.tars / "bell.tar").read_bytes() == before
    world.run(*arguments, "--force")
    made = (world.tars / "bell.tar").read_bytes()
    world.run(*arguments)
    assert made != before and (world.tars / "bell.tar").read_bytes() == made


def test_what_describes_classifiers_is_read_and_checked(folder, tmp_path, monkeypatch):
    assert canvas_classifiers.classifier_settings(tmp_path)["labels"]["style"][38] == "Seed_Images"  # UnlearnCanvas's own
    shutil.copytree(folder / "classifiers", tmp_path / "c")
    path = tmp_path / "c/classifiers.json"
    settings = json.loads(path.read_text())
    monkeypatch.setattr("slug.data.canvas.PUBLISHED", path.rename(tmp_path / "published.json"))
    assert canvas_classifiers.load_classifiers(tmp_path / "c").labels == {"style": STYLES, "object": OBJECTS}
    wrong = {"arch": ["no_such_network", 3], "labels": [{"style": STYLES}, {"style": STYLES, "object": "bell"}, []]}
    wrong |= {"mean": [[0.5], "grey", 0.5], "std": [None], "size": ["16", 0]}
    for key, values in wrong.items():
        for changed in ({k: v for k, v in settings.items() if k != key}, *(settings | {key: v} for v in values)):
            path.write_text(json.dumps(changed))
            with pytest.raises(SlugError, match=f"classifiers.json: '{key}' is missing or not"):
                canvas_classifiers.load_classifiers(tmp_path / "c")
    for options in ({"nonsense": 1}, ["channels"]):
        path.write_text(json.dumps(settings | {"options": options}))
        with pytest.raises(SlugError, match="does not fit resnet10t"):
            canvas_classifiers.load_classifiers(tmp_path / "c")


def test_classifiers_that_will_not_do(folder, tmp_path):
    with pytest.raises(SlugError, match="classifiers not found"):
        canvas_classifiers.load_classifiers(tmp_path / "nowhere")
    tiny.write_classifiers(tmp_path / "c", {"style": STYLES, "object": OBJECTS})
    settings = json.loads((tmp_path / "c/classifiers.json").read_text())
    settings["labels"]["object"] = OBJECTS[:2]
    (tmp_path / "c/classifiers.json").write_text(json.dumps(settings))
    with pytest.raises(SlugError, match="does not fit resnet10t"):
        canvas_classifiers.load_classifiers(tmp_path / "c")
    (tmp_path / "c/object.safetensors").unlink()
    with pytest.raises(SlugError, match="has no object"):
        canvas_classifiers.load_classifiers(tmp_path / "c")


def test_pictures_of_any_shape_become_the_pipelines(tmp_path):
    picture = Image.new("RGB", (40, 20), (10, 200, 30))
    assert unlearncanvas.resize(16)(picture).shape == (3, 16, 16)


def test_the_search_is_the_houses(pipeline, folder):
    """unlearn.search_all asks a canvas.Judge as it asks the CLIP's."""
    asked = canvas_prompts.requests(STYLES, OBJECTS, report=[0], select=[100])
    classifiers = canvas_classifiers.load_classifiers(folder / "classifiers")
    judged = unlearncanvas.Judge(pipeline, classifiers, asked, "style", "Noto", wanted=0.5, keep=0.9, others=100)
    forget = {
        n: torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for n, p in pipeline.clip.parameters.items()
    }
    front = [layers.Layer(n, "language", 1.0, 0.0) for n in pipeline.candidates()[:4]]
    curves, best = slug.search_all(pipeline.clip, judged, front, forget, evaluations=2)
    groups = {pipeline.clip.group(r.name) for r in front}
    assert len(curves) == len(groups) and (best is None or isinstance(best, unlearncanvas.Step))
    told = iter((False, False, True))
    curves, _ = slug.search_all(pipeline.clip, judged, front, forget, evaluations=2, settled=lambda: next(told))
    assert sum(map(len, curves.values())) == 3
    curves, _ = slug.search_all(pipeline.clip, judged, front, forget, evaluations=1, alone=True)
    assert len(curves) == len(groups | {(r.name,) for r in front})
    assert all(pipeline.clip.group(n) == (n.removesuffix(ALONE),) for n in curves if n.endswith(ALONE))
