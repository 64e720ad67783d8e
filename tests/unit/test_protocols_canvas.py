"""The points of a protocol about UnlearnCanvas: what `paper` gives, and that switching one alone back changes it."""

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import tiny
import torch
from tiny_canvas import OBJECTS, STYLES, Painted, Reader, sound

from slug import files, protocols
from slug.core import slug
from slug.core.edit import Edit
from slug.core.search import Plan, over_layer
from slug.data import canvas as canvas_files
from slug.errors import SlugError
from slug.evaluation import canvas_prompts, unlearncanvas
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_prompts import Concept, Request
from slug.experiments import pipeline_setup, pipelines, pipelines_report
from slug.experiments.pipelines import Forgetting
from slug.protocols import OURS, PAPER, Protocol
from slug.settings import ForgetPipeline, Judging, Pipeline, Run

POINTS = [f.name for f in protocols.about(canvas=True) if f.name.startswith(protocols.CANVAS)]
SHARED = ("margin_rule", "choose", "every_column")  # points of CLIP's that pipelines follow as well
NOTO = Concept("style", "Noto")


def run():
    return Run(device="cpu", protocol="paper")


def evaluator(here, rules, **how):
    """A CanvasEvaluator of Noto on a pipeline that is sound at its original weights: 6 pictures of Noto, 6 others."""
    asked = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=[100, 101], shared=True)
    settings = ForgetPipeline(run=run())
    how = {"wanted": settings.wanted, "keep": settings.keep, "others": 100, "protocol": rules} | how
    return unlearncanvas.CanvasEvaluator(Painted(sound), Reader(), asked, NOTO, **how)


def scored(here, rules, says):
    """(progress, whether it forgets, retained accuracy, whether it may be kept) where `says` tells what is painted."""
    found = evaluator(here, rules)
    found.diffusion.says = says
    candidate = found.score(Edit({}, "l", 1.0), found.start)
    return candidate.progress, candidate.forgotten, candidate.retained, candidate.preference is not None


def never_noto(prompt, seed):
    """Nothing is painted as Noto."""
    return [1, sound(prompt, seed)[1]]


def once_noto(prompt, seed):
    """Noto is painted for one prompt of six."""
    return [0 if "bell" in prompt and seed == 100 and "Noto" in prompt else 1, sound(prompt, seed)[1]]


def never_noto_and_keys(prompt, seed):
    """Nothing is painted as Noto, and all else is a key: CRA is 1/3."""
    return [1, 1]


def plan(here, rules):
    """The Plan of a pipeline's search."""
    pipeline, seen = tiny.load_pipeline(here.sd), []
    settings = ForgetPipeline(run=run())
    forgetting = Forgetting(settings, SimpleNamespace(pipeline=pipeline), None)
    gradient = {n: torch.ones_like(p) for n, p in pipeline.clip.parameters.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slug, "front_by_front", lambda *a, **k: seen.append(a[4]))
        forgetting.one_layer(SimpleNamespace(concept=NOTO), gradient, gradient, None)
    (found,) = seen
    assert isinstance(found, Plan)
    return found


def steps(here, rules):
    """The steps of a layer whose first one is 1 in a search that forgets from 3.9 tenths on."""
    schedule = plan(here, rules).schedule
    return list(over_layer(lambda s, coming: (s, float(s >= 3.9)), schedule.scale, schedule))[:4]


def canvas(here, **more):
    """The set-up of a pipeline's experiments."""
    path = here.work / "prompts.csv"
    canvas_prompts.write_requests(path, canvas_prompts.requests(STYLES, OBJECTS))
    judging = Judging(prompts=str(path), classifiers=str(here.sd / "classifiers"))
    pipeline = Pipeline(pipeline=str(here.sd / "pipeline"), clip_model_id=str(here.sd / "hugging_face"))
    return pipeline_setup.Canvas(dataclasses.replace(run(), result_dir=str(here.work / "r")), pipeline, judging, **more)


def input_of_classifiers(here, rules):
    """(size, mean, deviation) of classifiers whose classifiers.json does not say them; None where it has to."""
    bare = {"arch": "resnet10t", "labels": {"style": STYLES, "object": OBJECTS}}
    files.write_json(here.work / "classifiers.json", bare)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_setup, "load_classifiers", lambda folder, device, side: asked.append(side) or Reader())
        patch.setattr(Reader, "hash", lambda self: "", raising=False)
        canvas(here)
    try:
        found = canvas_files.classifier_settings(here.work, asked[0])
    except SlugError:
        return None
    return found["size"], found["mean"], found["std"]


class Examined(pipelines_report.Examination):
    """b3's figures of one record where paintings are right, and no other picture."""

    def __init__(self, here):
        self.asked, self.records, self.dealt = canvas_prompts.requests(STYLES, OBJECTS, validation=[]), [], []
        self.canvas = SimpleNamespace(run=run(), correct=self.said, draw=lambda *a: [], pipeline=SimpleNamespace(tag="p"))
        self.canvas.delta = lambda record: here.sd / "classifiers/style.safetensors"
        self.canvas.edit = lambda record: SimpleNamespace(applied=contextlib.nullcontext)

    @staticmethod
    def said(requests, paths, what=""):
        told = torch.tensor([r.wording.startswith("A painting") for r in requests])
        return Judged({"style": told, "object": told}, torch.ones_like(told))


def cra(here, rules):
    """CRA in b3's table, before and after."""
    examined, zeros = Examined(here), dict.fromkeys(("seconds", "peak_mem_mb", "params_share", "n_candidates"), 0)
    record = zeros | {"kind": "style", "name": "Noto", "method": "slug", "delta_bytes": 0, "lora": None, "chosen": []}
    answers = examined.said(examined.asked, [])
    return [row["CRA"] for row in examined.rows(record | {"delta": "d.delta.safetensors"}, answers, answers)]


FIGURES = {
    "canvas_prompt": lambda here, rules: canvas(here).requests[0].prompt,
    "canvas_rule": steps,
    "canvas_stop": lambda here, rules: scored(here, rules, never_noto)[0],
    "canvas_evaluations": lambda here, rules: plan(here, rules).schedule.evaluations,
    "canvas_wanted": lambda here, rules: ForgetPipeline(run=run()).wanted,
    "canvas_keep": lambda here, rules: scored(here, rules, never_noto_and_keys)[3],
    "canvas_fronts": lambda here, rules: plan(here, rules).fronts,
    "canvas_whole_groups": lambda here, rules: plan(here, rules).alone,
    "canvas_two_pictures": lambda here, rules: (scored(here, rules, never_noto_and_keys)[2], cra(here, rules)),
    "canvas_input": input_of_classifiers,
    "canvas_half": lambda here, rules: pipeline_setup.precision(run(), torch.device("cuda:0")),
    "canvas_photographs": lambda here, rules: pipelines.canvas_prompts.to_forget(
        [Request("test", s, "bell", 0) for s in ("Noto", "Seed_Images")], rules
    ),
    "margin_rule": lambda here, rules: near(here, rules),
    "choose": lambda here, rules: plan(here, rules).choose,
    "every_column": lambda here, rules: scored(here, rules, sound)[2],
}
WANTED = {
    "canvas_prompt": "A bell in Noto style",
    "canvas_rule": [4, 2, 3, 3.5],
    "canvas_stop": 2.0,
    "canvas_evaluations": 10,
    "canvas_wanted": 1.0,
    "canvas_keep": True,
    "canvas_fronts": 1,
    "canvas_whole_groups": False,
    "canvas_two_pictures": ((1 + 0.5) / 2, [1.0, 1.0]),
    "canvas_input": (224, [0.5] * 3, [0.5] * 3),
    "canvas_half": "fp16",
    "canvas_photographs": [Concept("style", "Noto"), Concept("style", "Seed Images"), Concept("object", "bell")],
    "margin_rule": True,
    "choose": "deepest",
    "every_column": 1.0,
}


def near(here, rules):
    """Whether a concept is forgotten that is recognised in no picture, but nearly in all."""
    found = evaluator(here, rules)
    found.diffusion.says = never_noto
    patch = {"margin": -0.1, "margin_sd": 1.0}
    candidate = found.score(Edit({}, "l", 1.0), found.start)
    return found.candidate(candidate.edit, {**candidate.scores, **patch}).forgotten


@pytest.fixture(scope="module")
def here(tiny_canvas, tmp_path_factory):
    return SimpleNamespace(sd=tiny_canvas, work=tmp_path_factory.mktemp("canvas-protocols"))


@pytest.mark.parametrize("point", [*POINTS, *SHARED])
def test_each_point_alone_changes_a_figure(here, point, monkeypatch):
    monkeypatch.setitem(protocols.BY_NAME, "paper", PAPER)
    assert FIGURES[point](here, PAPER) == WANTED[point]
    back = dataclasses.replace(PAPER, **{point: getattr(OURS, point)})
    monkeypatch.setitem(protocols.BY_NAME, "paper", back)
    assert FIGURES[point](here, back) != WANTED[point]


@pytest.mark.parametrize("point", POINTS)
def test_both_protocols_say_what_a_point_means(point):
    field = Protocol.__dataclass_fields__[point]
    assert len({protocols.meaning(field, getattr(p, point)) for p in (PAPER, OURS)}) == 2


def test_records_of_a_clip_do_not_depend_on_the_points_of_pipelines():
    assert not [n for n in protocols.values(PAPER) if n.startswith(protocols.CANVAS)]
    assert set(POINTS) < set(protocols.values(PAPER, canvas=True))


def test_the_search_goes_on_where_ira_changed_too_much(here):
    """Styles are taken for each other."""
    assert scored(here, PAPER, lambda p, s: [1 - sound(p, s)[0], sound(p, s)[1]])[:2] == (1.0, True)


def test_a_concept_that_one_picture_shows_is_not_forgotten(here):
    assert not scored(here, PAPER, once_noto)[1]


def test_the_bracket_is_halved_from_its_far_end():
    found = over_layer(lambda s, coming: (s, float(s >= 30)), 4.0, dataclasses.replace(pipelines.BRACKET, evaluations=4))
    assert list(found) == [4, 22, 31, 26.5]


def test_a_given_precision_comes_before_the_protocol():
    assert pipeline_setup.precision(Run(protocol="paper", precision="bf16"), "cuda") == "bf16"
    assert pipeline_setup.precision(Run(protocol="paper"), "cpu") == "fp32"


def test_paintings_are_of_other_concepts():
    asked = canvas_prompts.requests(STYLES, OBJECTS, validation=[])
    prompts = [r.prompt for r in canvas_prompts.paintings(Concept("object", "bell"), asked)]
    assert prompts == ["A painting of key", "A painting in Noto style"]
    assert [r.prompt for r in canvas_prompts.paintings(NOTO, asked)] == [
        "A painting of bell",
        "A painting in Blob Old style",
    ]
