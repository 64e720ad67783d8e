"""Protocols: the rules of a run, point by point. `paper` are those of the published code, `ours` are this project's own.

Code asks a protocol for one point, as in `protocol.own_captions`, and never for its name. Each point stands once, below,
with both values and what they mean. This module imports nothing slow.

Example: python -m slug.protocols paper        prints the protocol's name and its points
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from slug.errors import SlugError

CHOICE = (
    "the published code chooses neither, it logs ten steps of every Pareto layer; the choice here is ours: the deepest "
    "Pareto layer that reaches FA@5 = 0, and of its steps that do, the one of the highest retained accuracy"
)

CANVAS = "canvas_"  # what the names of UnlearnCanvas's points begin with


def point(row: str, *, paper: tuple[Any, str], ours: tuple[Any, str]) -> Any:
    """A field in which protocols differ: `row` says what it is about, `paper` and `ours` are (value, what it means)."""
    return field(kw_only=True, metadata={"row": row, "paper": paper, "ours": ours})


@dataclass(frozen=True)
class Protocol:
    """The rules of a run."""

    name: str

    every_picture: bool = point(
        "forget accuracy",
        paper=(True, "every CelebA picture listed for the name; choices and reports are of the same pictures"),
        ours=(False, "pictures of the listed identities, split by source image: choices on one half, reports on the other"),
    )
    mean_over_names: bool = point(
        "identities",
        paper=(True, "the accuracy of each identity over its pictures, then the unweighted mean over identities"),
        ours=(False, "mean over pictures"),
    )
    name_retained: bool = point(
        "forgotten name",
        paper=(True, "its pictures count among those of its retained task"),
        ours=(False, "its pictures are left out of the retained task; its name stays among the classes"),
    )
    objects_share: float = point(
        "objects, share", paper=(0.05, "5% of ImageNet's validation pictures"), ours=(1.0, "all of them")
    )
    objects_by_randomstate: bool = point(
        "objects, draw",
        paper=(True, "numpy's RandomState(0), over all classes"),
        ours=(False, "numpy's generator, by --seed"),
    )
    own_captions: bool = point(
        "membership",
        paper=(
            True,
            "the cosine of a picture with its own caption, forget set against a shard of another corpus (--mia-data), raw; "
            "seeds 0 to 9 draw equal sizes, each with 10 stratified splits with 10% for the test",
        ),
        ours=(
            False,
            "the cosine of a picture with the prompt of its name, forget set against evaluation pictures, standardised",
        ),
    )
    search_rule: str = point(
        "search",
        paper=("paper", "doubled while FA@k > 0, then the arithmetic midpoint of the bracket; ten evaluations"),
        ours=("robust", "geometric midpoint, with all answers so far; ends early where the bracket is narrow"),
    )
    bracket_k: int = point(
        "search, k", paper=(5, "FA@5 brackets the step"), ours=(0, "k of FA@k follows the number of names")
    )
    margin_rule: bool = point(
        "forgotten",
        paper=(False, "FA@k = 0 is enough"),
        ours=(True, "FA@1 of at most --max-forget, and margins --sigmas deviations below 0"),
    )
    choose: str = point(
        "layer and step",
        paper=("deepest", CHOICE),
        ours=("retain", "of all steps that forget, the highest retained accuracy"),
    )
    every_column: bool = point(
        "columns",
        paper=(True, "every figure of every candidate, on all retained pictures"),
        ours=(False, "retained accuracy of candidates that can still win, on --select-pictures of each task"),
    )
    evaluation_batch: int = point("evaluation batch", paper=(32, "32"), ours=(256, "256; no answer depends on it"))
    batch_means: bool = point(
        "gradient, mean",
        paper=(True, "mean of the means of the batches: a short last forget batch weighs as much as a full one"),
        ours=(False, "the forget loss is a mean over pairs"),
    )
    train_mode: bool = point(
        "gradient, model", paper=(True, "in train mode; buffers are put back"), ours=(False, "in eval mode")
    )
    training_crops: bool = point(
        "gradient, retained pictures",
        paper=(True, "random resized crops of scale 0.9 to 1, shuffled, seed 0"),
        ours=(False, "the evaluation transform, in file order"),
    )
    all_names_left_out: bool = point(
        "retain set",
        paper=(True, "without the pairs that say any name of the run, in batches of what is left"),
        ours=(
            False,
            "without the pairs that say the name itself, in fixed batches: no name depends on the others of its run",
        ),
    )
    learning_rates: tuple[float, ...] = point(
        "baselines, learning rates", paper=((1e-7,), "1e-7"), ours=((1e-5, 1e-6, 1e-7), "a grid, 1e-5, 1e-6 and 1e-7")
    )
    grow: int = point(
        "baselines, grid",
        paper=(0, "as given"),
        ours=(4, "grows by half decades, at most 4, while its first or last value is the best"),
    )
    betas: tuple[float, float] = point(
        "baselines, AdamW's betas", paper=((0.9, 0.98), "0.9 and 0.98"), ours=((0.9, 0.999), "torch's, 0.9 and 0.999")
    )
    eps: float = point("baselines, AdamW's eps", paper=(1e-6, "1e-6"), ours=(1e-8, "torch's, 1e-8"))
    undecayed: tuple[str, ...] = point(
        "baselines, weight decay",
        paper=(("bn", "ln", "bias", "logit_scale"), "tensors of two axes or more, outside norms, biases and logit_scale"),
        ours=((), "tensors of two axes or more"),
    )
    ga_by_retain_length: bool = point(
        "GA's schedule",
        paper=(True, "its few steps count on the cosine of epochs as long as the retain set: the rate hardly decays"),
        ours=(False, "the cosine over its own steps"),
    )
    mask_holds: bool = point(
        "SalUn",
        paper=(False, "the mask is applied to gradients only: weight decay still moves masked weights"),
        ours=(True, "masked weights keep their values exactly"),
    )
    ssd_compounds: bool = point(
        "SSD",
        paper=(True, "each dampening works on the weights that the one before left"),
        ours=(False, "each dampening works on the original weights"),
    )
    first_zero: bool = point(
        "reported epoch",
        paper=(
            True,
            "the first with FA@1 = 0, else the one of the lowest FA@1; of several learning rates the lowest comes first",
        ),
        ours=(False, "the rule of every method, on the validation split"),
    )
    comparison_ratio: bool = point(
        "comparison log", paper=(False, "lines without `ratio`"), ours=(True, "`ratio` is the learning rate")
    )
    comparison_mia: float = point(
        "comparison log, MIA", paper=(100.0, "in hundredths of a percent, as published"), ours=(1.0, "in %")
    )
    canvas_prompt: str = point(
        "UnlearnCanvas, prompts",
        paper=("A {object} in {style} style", "`A {object} in {style} style`"),
        ours=("An {object} image in {style} style.", "UnlearnCanvas's own, `An {object} image in {style} style.`"),
    )
    canvas_rule: str = point(
        "UnlearnCanvas, steps",
        paper=(
            "bracket",
            "a bracket up to 4 times the weights' norm over the gradient's, begun at a tenth of that, then halved",
        ),
        ours=("robust", "1, 4, 16, 64 times a tenth of the weights' norm over the gradient's, then geometric midpoints"),
    )
    canvas_stop: bool = point(
        "UnlearnCanvas, stop",
        paper=(True, "a layer's search ends where the concept is recognised in no picture and IRA changes by less than 0.1"),
        ours=(False, "where the bracket is narrow, or the best step forgets and retains as much as the unedited pipeline"),
    )
    canvas_evaluations: int = point("UnlearnCanvas, evaluations", paper=(10, "10 a layer"), ours=(8, "8 a layer"))
    canvas_wanted: float = point(
        "UnlearnCanvas, forgotten", paper=(1.0, "UA = 100%"), ours=(0.9, "UA of --wanted, 90%, counted and estimated")
    )
    canvas_keep: float = point(
        "UnlearnCanvas, retained", paper=(0.0, "no floor"), ours=(0.87, "a step must leave --keep, 87%, of IRA and of CRA")
    )
    canvas_fronts: int = point("UnlearnCanvas, fronts", paper=(1, "the first"), ours=(3, "up to 3, until a step forgets"))
    canvas_whole_groups: bool = point(
        "UnlearnCanvas, groups",
        paper=(True, "q, k, v, and both fc layers, move together"),
        ours=(False, "they move together, and one by one"),
    )
    canvas_two_pictures: bool = point(
        "UnlearnCanvas, CRA",
        paper=(True, "from two pictures, `A painting of {object}` and `A painting in {style} style`"),
        ours=(False, "from all pictures that do not show the concept"),
    )
    canvas_input: int = point(
        "UnlearnCanvas, classifiers",
        paper=(224, "224 pixels, mean and deviation 0.5, unless their classifiers.json says otherwise"),
        ours=(0, "size, mean and deviation that their classifiers.json says"),
    )
    canvas_half: bool = point(
        "UnlearnCanvas, precision",
        paper=(True, "pictures in half precision on a GPU"),
        ours=(False, "pictures in --precision, fp32"),
    )
    canvas_photographs: bool = point(
        "UnlearnCanvas, photographs",
        paper=(True, "Seed_Images is a style among others: 51 are forgotten"),
        ours=(False, "Seed_Images is left out: 50 styles are forgotten"),
    )


PAPER, OURS = (
    Protocol(name, **{f.name: f.metadata[name][0] for f in fields(Protocol) if f.metadata}) for name in ("paper", "ours")
)
BY_NAME = {p.name: p for p in (PAPER, OURS)}


def get(name: str) -> Protocol:
    """The protocol of a name. SlugError for an unknown one."""
    if name not in BY_NAME:
        raise SlugError(f"there is no protocol {name!r}; choose from {', '.join(BY_NAME)}")
    return BY_NAME[name]


def meaning(point: Any, value: Any) -> str:
    """What a value of a point means in words; of a value that neither protocol has, the value."""
    return next((said for given, said in (point.metadata["paper"], point.metadata["ours"]) if given == value), str(value))


def about(*, canvas: bool) -> list[Any]:
    """The points of Protocol as fields: `canvas`, with those of UnlearnCanvas, which nothing but pipelines depends on."""
    return [f for f in fields(Protocol) if f.metadata and (canvas or not f.name.startswith(CANVAS))]


def points(protocol: Protocol, *, canvas: bool = False) -> Iterator[tuple[str, str]]:
    """(what it is about, what the protocol does) of each point; for `canvas` see `about`."""
    for f in about(canvas=canvas):
        yield f.metadata["row"], meaning(f, getattr(protocol, f.name))


def values(protocol: Protocol, *, canvas: bool = False) -> dict[str, Any]:
    """{point: value} for a record, tuples as lists; for `canvas` see `about`."""
    found = {f.name: getattr(protocol, f.name) for f in about(canvas=canvas)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def describe(protocol: Protocol) -> str:
    """The protocol's name and its points, a line each."""
    return "\n".join([f"protocol: {protocol.name}", *(f"  {row}: {said}" for row, said in points(protocol, canvas=True))])


if __name__ == "__main__":
    print(describe(get(sys.argv[1] if len(sys.argv) > 1 else "")))
