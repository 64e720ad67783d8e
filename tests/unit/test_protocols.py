"""Every point of a protocol: what `paper` gives, and that switching this point alone back to `ours` changes it."""

import dataclasses
import math
import shutil
from types import SimpleNamespace

import pytest
import tiny
import torch
from clip_world import random_edit

from slug import methods, protocols
from slug.artifacts import gradient_files
from slug.artifacts.gradient_files import GradientFiles
from slug.core import gradients, losses, search
from slug.core.edit import kept
from slug.core.search import Schedule as Steps
from slug.core.selection import Rule
from slug.core.variants import Variant
from slug.errors import SlugError
from slug.evaluation import membership
from slug.experiments.baseline import Baseline
from slug.experiments.setup import World
from slug.methods import _training
from slug.methods._training import Schedule
from slug.protocols import OURS, PAPER, Protocol
from slug.settings import Compare, Data, Forget, Model, Run, Sources

POINTS = [f.name for f in protocols.about(canvas=False)]  # those of pipelines: test_protocols_canvas.py


class Here:
    """The tiny world, a model that knows nothing, so that accuracies differ, and a model with its training material."""

    def __init__(self, world, folder, work):
        self.world, self.folder = world, folder
        model = Model(model=f"local-dir:{folder / 'open_clip'}")
        places = {"val_data": str(world / "celeba"), "imagenet_val": str(world / "ImageNet" / "val"), "imagenet_share": 0.5}
        tars = {"forget_data": str(world / "laion" / "laion400m" / "00001.tar"), "train_data": str(self.shard("laion"))}
        data = Data(celeb_name=("Alien",), mia_data=str(world / "cc3m" / "00000.tar"), **places, **tars)
        self.settings = {
            "run": Run(device="cpu", workers=0, result_dir=str(work), protocol="paper"),
            "model": model,
            "data": data,
        }
        self.small = None

    def shard(self, corpus):
        return self.world / corpus / "laion400m" / "00000.tar"

    @property
    def evaluator(self):
        """The ClipEvaluator of Alien on the validation split."""
        world = World(**self.settings)
        return world.evaluators("Alien", world.pairs("Alien"))["validation"]

    def training(self, rules, method="gaft"):
        """The weights after two epochs of a baseline."""
        clip = tiny.load(self.folder)
        forget, retain = tiny.pairs(6), tiny.pairs(40, seed=1)
        gradient, _ = gradients.compute(clip, forget, losses.cosine_embedding)
        material = methods.Material(forget, retain, Variant(), gradient, protocol=rules)
        with kept(clip, clip.parameters):
            how = Schedule(1e-3, epochs=2, batch_size=4, protocol=rules)
            list(methods.get(method).candidates(clip, material, how))
            return torch.cat([p.detach().flatten().clone() for p in clip.parameters.values()])

    def dampened(self, rules):
        """The weights after SSD's last dampening."""
        clip, g = tiny.load(self.folder), torch.Generator().manual_seed(0)
        forget, retain = ({n: torch.rand(p.shape, generator=g) for n, p in clip.parameters.items()} for _ in range(2))
        material = methods.Material(None, None, Variant(), None, forget, retain, rules)
        with kept(clip, clip.parameters):
            list(methods.get("ssd").candidates(clip, material, 1.5))
            return torch.cat([p.detach().flatten().clone() for p in clip.parameters.values()])


def modes(here, rules):
    """Whether the model is in train mode while gradients are taken."""
    clip, seen = tiny.load(here.folder), []

    def loss(image, text, scale):
        seen.append(clip.module.training)
        return losses.cosine_embedding(image, text)

    gradients.compute(clip, tiny.pairs(2), loss, protocol=rules)
    assert not clip.module.training
    return seen


def gradient(here, rules):
    """The forget gradient of a full batch and a short one."""
    found, _ = gradients.compute(
        tiny.load(here.folder), tiny.pairs(5), losses.cosine_embedding, batch_size=4, protocol=rules
    )
    return found["visual.proj"]


def retained(here, rules):
    """The retain pictures of the gradient pass."""
    sources = Sources(celeb_name=("Alien",), train_data=str(here.shard("laion")))
    files = GradientFiles(tiny.load(here.folder), sources, "x", 16, protocol=rules)
    return files.pairs(files.retain_tar, ["Alien"], 0).images.float()


def log_line(here, rules):
    """A line of a comparison log."""
    columns = "forget_acc1 forget_acc5 identities_acc1 identities_acc5 objects_acc1 objects_acc5".split()
    row = dict.fromkeys(columns, 0.5) | {"mia_mean": 72.5, "mia_std": 1.5, "step": 0.0}
    scored, written = SimpleNamespace(row=lambda: row, step=1.0), {}
    about = {
        "clip": SimpleNamespace(label="m"),
        "folder": here.world / "none",
        "made_with": {},
        "stored": None,
        "model_hash": "x",
    }
    baseline = Baseline(
        name="Alien",
        method=methods.get("ga"),
        settings=Compare(run=here.settings["run"], data=here.settings["data"]),
        seconds=(0, 0),
        evaluators=lambda: {"validation": SimpleNamespace(start=scored)},
        **about,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slug.files.write_text", lambda path, text: written.update({path: text}))
        baseline._write_log(1e-7, [scored], [3.0])
    return next(iter(written.values())).splitlines()[-1]


def left_out(here, rules):
    """The names whose pairs are no retained pairs where Alien is forgotten in a run with another name."""
    data = dataclasses.replace(here.settings["data"], celeb_name=("Bento_Box", "Alien"))
    return World(**{**here.settings, "data": data}).gradients.left_out("Alien")


def settings(kind, here):
    return kind(run=here.settings["run"], data=dataclasses.replace(here.settings["data"], imagenet_share=None))


# {point: a figure that follows from it}, of (here, the protocol in force, which is also what `--protocol paper` means).
FIGURES = {
    "every_picture": lambda here, rules: len(here.evaluator.forget_rows),
    "mean_over_names": lambda here, rules: of_one_name(here.evaluator),
    "name_retained": lambda here, rules: len(here.evaluator.retain_rows["identities"]),
    "objects_share": lambda here, rules: settings(Forget, here).data.imagenet_share,
    "objects_by_randomstate": lambda here, rules: World(**here.settings).sets[1].pictures.paths,
    "own_captions": lambda here, rules: here.evaluator.start.scores["mia_mean"],
    "search_rule": lambda here, rules: settings(Forget, here).search.search_rule,
    "bracket_k": lambda here, rules: here.evaluator.k,
    "margin_rule": lambda here, rules: (
        World(**here.settings).rule().forgotten({"forget_acck": 0.0, "forget_acc1": 0.0, "margin": -0.1, "margin_sd": 0.2})
    ),
    "choose": lambda here, rules: settings(Forget, here).search.choose,
    "every_column": lambda here, rules: math.isnan(scored_badly(here).retained),
    "evaluation_batch": lambda here, rules: World(**here.settings).evaluation.batch_size,
    "batch_means": gradient,
    "train_mode": modes,
    "training_crops": retained,
    "all_names_left_out": left_out,
    "learning_rates": lambda here, rules: settings(Compare, here).lr,
    "grow": lambda here, rules: settings(Compare, here).grow,
    "betas": lambda here, rules: here.training(rules),
    "eps": lambda here, rules: here.training(rules),
    "undecayed": lambda here, rules: _training.decays("relative_attention_bias.weight", 2, rules),
    "ga_by_retain_length": lambda here, rules: here.training(rules, "ga"),
    "mask_holds": lambda here, rules: here.training(rules, "salun"),
    "ssd_compounds": lambda here, rules: here.dampened(rules),
    "first_zero": lambda here, rules: (
        World(**here.settings)
        .rule(epochs=True)
        .preference(accuracy=0.0, forgotten=True, retained=0.5, margin=-1.0, step=3.0)
    ),
    "comparison_ratio": log_line,
    "comparison_mia": log_line,
}
WANTED = {  # by the published rules, where it can be said in advance
    "every_picture": 22,
    "mean_over_names": pytest.approx((0.25, 0.25)),
    "name_retained": 86,
    "objects_share": 0.05,
    "search_rule": "paper",
    "bracket_k": 5,
    "margin_rule": True,
    "choose": "deepest",
    "every_column": False,
    "evaluation_batch": 32,
    "train_mode": [True],
    "all_names_left_out": ["Alien", "Bento Box"],
    "learning_rates": (1e-7,),
    "grow": 0,
    "undecayed": False,
    "first_zero": (0.0,),
}


def of_one_name(evaluator):
    """The accuracies where all pictures of one of four names are recognised, and no others."""
    rows = evaluator.retain_rows["identities"]
    labels = evaluator.evaluation.tasks["identities"].pictures.labels[rows]
    return evaluator.accuracies("identities", torch.where(labels == labels.mode().values, 0, 9), rows)


def scored_badly(here):
    """The candidate of an edit that does not forget."""
    evaluator = here.evaluator
    return evaluator.score(random_edit(evaluator.evaluation.clip, "visual.proj", relative=1e-6))


@pytest.fixture(scope="module")
def here(taught_clip, tiny_clip, tiny_world, tmp_path_factory):
    return Here(tiny_world, taught_clip, tmp_path_factory.mktemp("protocols"))


def figure(here, point, rules, monkeypatch):
    """The figure of a point where `--protocol paper` means `rules`."""
    monkeypatch.setitem(protocols.BY_NAME, "paper", rules)
    monkeypatch.setattr(membership, "SEEDS", range(2))
    return FIGURES[point](here, rules)


def differ(a, b):
    """Whether two figures differ."""
    if isinstance(a, torch.Tensor):
        return a.shape != b.shape or not torch.equal(a, b)
    return a != b


@pytest.mark.parametrize("point", POINTS)
def test_each_point_alone_changes_a_figure(here, point, monkeypatch):
    found = figure(here, point, PAPER, monkeypatch)
    back = dataclasses.replace(PAPER, **{point: getattr(OURS, point)})
    assert differ(found, figure(here, point, back, monkeypatch))
    if point in WANTED:
        assert found == WANTED[point]


@pytest.mark.parametrize("point", POINTS)
def test_both_protocols_say_what_a_point_means(point):
    field = Protocol.__dataclass_fields__[point]
    said = [protocols.meaning(field, getattr(p, point)) for p in (PAPER, OURS)]
    assert all(isinstance(s, str) and s for s in said) and said[0] != said[1]


def test_a_value_of_neither_protocol_is_told_as_it_is():
    assert protocols.meaning(Protocol.__dataclass_fields__["grow"], 7) == "7"


def test_an_unknown_protocol_is_refused():
    with pytest.raises(SlugError, match="choose from paper, ours"):
        protocols.get("theirs")


def test_the_description_names_the_protocol_and_every_point():
    lines = protocols.describe(PAPER).splitlines()
    assert (
        lines[0] == "protocol: paper"
        and len(lines) == 1 + len(protocols.about(canvas=True))
        and "deepest" in protocols.describe(PAPER)
    )


def test_the_search_doubles_and_takes_arithmetic_midpoints():
    steps, evaluate = [], lambda step, coming: (step, float(step >= 5))
    steps = list(search.over_layer(evaluate, 1.0, Steps(rule=PAPER.search_rule, evaluations=7)))
    assert steps == [1, 2, 4, 8, 6, 5, 4.5]


def test_our_gradient_files_do_not_know_of_protocols(here):
    """So that files of before protocols are valid."""
    marks = []
    for rules in (OURS, PAPER):
        sources = Sources(celeb_name=("Alien",), train_data=str(here.shard("laion")))
        files = GradientFiles(tiny.load(here.folder), sources, "x", 16, protocol=rules)
        marks.append(files.mark(files.retain_tar, losses.contrastive, Variant()))
    assert "protocol" not in marks[0] and marks[1]["protocol"] == {p: True for p in gradient_files.POINTS}


def test_a_flag_comes_before_the_protocol(here):
    given = Forget(
        run=here.settings["run"], model=Model(eval_batch_size=7), data=Data(celeb_name=("A",), imagenet_share=0.3)
    )
    assert (given.model.eval_batch_size, given.data.imagenet_share) == (7, 0.3)


def test_a_group_that_several_settings_share_follows_each_of_them():
    data = Data(celeb_name=("A",))
    shares = [Forget(run=Run(protocol=p), data=data).data.imagenet_share for p in ("paper", "ours")]
    assert shares == [0.05, 1.0] and data.imagenet_share is None


def test_train_mode_puts_buffers_back():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).eval()
    before = module[0].running_mean.clone()
    with gradients._mode(SimpleNamespace(module=module), PAPER):
        module(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        assert not torch.equal(module[0].running_mean, before)
    assert torch.equal(module[0].running_mean, before) and not module.training


def test_a_name_that_the_list_lacks_is_evaluated_and_counts_in_no_mean(here, tmp_path):
    shutil.copytree(here.world / "celeba", tmp_path / "celeba")
    path = tmp_path / "celeba" / "frequent_celebs.txt"
    path.write_text(path.read_text().replace("Alien\n", ""))
    data = dataclasses.replace(here.settings["data"], val_data=str(tmp_path / "celeba"))
    world = World(**here.settings | {"data": data})
    found = world.evaluators("Alien", None)["validation"]
    assert (len(found.forget_rows), len(found.retain_rows["identities"])) == (22, 64)
    ours = World(**here.settings | {"data": data, "run": dataclasses.replace(here.settings["run"], protocol="ours")})
    with pytest.raises(SlugError, match="shows no picture of Alien"):
        ours.evaluators("Alien", None)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(), ""),
        (Rule(most=0.05), "at most 5% recognised, margins 3.5 standard deviations below 0"),
        (Rule(margins=False), "FA@k = 0"),
    ],
)
def test_a_rule_that_is_not_the_usual_one_says_when_a_name_is_forgotten(rule, said):
    assert rule.words == said


def test_own_pictures_have_no_published_protocol():
    given = ["--celeb-name", "Zoe", "--images", "x", "--protocol", "paper"]
    with pytest.raises(SlugError, match="leave it out together with --images"):
        tiny.stage("a2_unlearn_slug").parse_args(given)
