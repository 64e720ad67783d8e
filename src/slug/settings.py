"""Every setting of every stage, as frozen dataclasses whose fields are the stages' flags (see slug.cli).

Fields are named as the flags are, so that `cli.flat` gives what a record holds. A constant of the method that a user may
change has its one place here, as a default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug.cli import Amount, Count, Finite, Folder, Fraction, Pairs, Positive, Whole, flag, group
from slug.errors import SlugError
from slug.files import checked_name
from slug.pool import LOCAL
from slug.schema import STUDY_VARIANTS
from slug.setting_groups import MAX_FORGET as MAX_FORGET
from slug.setting_groups import SIGMAS as SIGMAS
from slug.setting_groups import STANDARD as STANDARD
from slug.setting_groups import Data as Data
from slug.setting_groups import Following as Following
from slug.setting_groups import ForgetRule as ForgetRule
from slug.setting_groups import Model as Model
from slug.setting_groups import Ruled as Ruled
from slug.setting_groups import Run as Run
from slug.setting_groups import Sources as Sources

CANVAS = "data/UnlearnCanvas"
UNEDITED = "raw"  # among methods: the unedited model
ROUNDS = 3  # of the methods that edit several layers of a pipeline, where --rounds does not say


def _methods(host: str, searched: bool | None = None) -> Sequence[str]:
    from slug import methods  # here: methods import settings

    return methods.names(host, searched=searched)


def _gradients() -> Sequence[str]:
    from slug import methods
    from slug.core import variants

    return [*variants.BY_NAME, *(n for n in methods.names() if n not in variants.BY_NAME and methods.get(n).gradients)]


def _variants() -> Sequence[str]:
    from slug.core import variants

    return [name for name, variant in variants.BY_NAME.items() if not variant.squared]


@dataclass(frozen=True)
class GradientStage(Following):
    """What the gradient stages have in common."""

    run: Run = group(Run)
    unlearn_method: tuple[str, ...] = flag(
        ("calc_grad",), "methods whose gradient files are written, or the names of the files' kinds", choices=_gradients
    )
    sources: Sources = group(Sources)
    grad_checkpointing: bool = flag(False, "compute activations twice: less memory, a third more time")
    force: bool = flag(False, "compute files again that are valid")


@dataclass(frozen=True)
class Gradients(GradientStage):
    """a1_compute_grad.py."""

    model: Model = group(Model)
    published: str = flag("", "folder of gradient files of the published code: take these for one name, computing nothing")
    checkpoints: tuple[Count, ...] = flag((), "also gradients of the first so many pairs, rounded up to whole batches")


@dataclass(frozen=True)
class TextGradients(GradientStage):
    """b1_compute_grad.py."""

    clip_model_id: str = flag("openai/clip-vit-large-patch14", "Hugging Face CLIP id or folder")
    batch_size: Pairs = flag(16, "pairs in a batch of the gradient pass")


@dataclass(frozen=True)
class Search:
    """The search of the layer and its step."""

    evaluations: Count = flag(10, "steps evaluated on each layer, at most")
    fronts: Count = flag(1, "Pareto fronts of each encoder whose layers are searched")
    encoder: str = flag("both", "search the layers of this encoder alone", choices=("both", "vision", "language"))
    search_rule: str = flag(help="how steps are bracketed", choices=("robust", "paper"), by="search_rule")
    choose: str = flag(
        help="which candidate wins: the one with the highest retained accuracy, or the deepest layer that forgets",
        choices=("retain", "deepest"),
        by="choose",
    )
    log_all: bool = flag(False, "evaluate every column at every step")
    lookahead: Whole = flag(0, "evaluations whose forget pictures are scored in one pass; 0: 3 on CUDA, else 1")
    plain: bool = flag(False, "evaluate in the slow, published way; the figures are the same")
    layer: str = flag("", "search this layer only, instead of the Pareto fronts")
    step: Finite = flag(0.0, "with --layer: this step alone, without a search")

    def __post_init__(self) -> None:
        if self.step and not self.layer:
            raise SlugError("--step needs --layer: give the layer that the step is for")


@dataclass(frozen=True)
class Forget(Ruled):
    """a2_unlearn_slug.py."""

    run: Run = group(Run)
    model: Model = group(Model)
    data: Data = group(Data)
    rule: ForgetRule = group(ForgetRule)
    unlearn_method: str = flag("slug", "variant of SLUG", choices=lambda: _methods("clip", searched=True))
    search: Search = group(Search)
    force: bool = flag(False, "do again what is valid")


@dataclass(frozen=True)
class Compare(Ruled):
    """a3_unlearn_compare.py."""

    run: Run = group(Run)
    model: Model = group(Model, batch_size=32)
    data: Data = group(Data)
    rule: ForgetRule = group(ForgetRule)
    grad_batch_size: Pairs = flag(16, "the --batch-size that a1_compute_grad.py was given")
    unlearn_method: tuple[str, ...] = flag(
        (),
        "baselines to run, or raw for the scores of the unedited model; without this flag FT, GA, GAFT, SalUn and SSD",
        choices=lambda: (UNEDITED, *_methods("clip", searched=False)),
    )
    lr: tuple[Positive, ...] = flag(help="learning rates", by="learning_rates")
    grow: Whole = flag(help="half decades beyond the given grid, at most, while the best setting is at its end", by="grow")
    selection: tuple[Positive, ...] = flag((10.0,), "selection weights of SSD")
    settings_from: str = flag("", "table.csv of an earlier comparison: repeat only what it chose")
    wd: Amount = flag(0.1, "AdamW's weight decay")
    epochs: Count = flag(10, "passes over the sets; each is a candidate")
    forget_epochs: Count = flag(10, "passes over the forget set of GA, which uses that set alone; each is a candidate")
    step_candidates: Whole = flag(
        0, "candidates of FT, GA, GAFT, SalUn at a learning rate: so many optimiser steps, most of them early; 0: the epochs"
    )
    warmup: Whole = flag(0, "warm-up in optimiser steps")
    force: bool = flag(False, "do again what is valid")


@dataclass(frozen=True)
class Several(Following):
    """a5_unlearn_multi.py."""

    run: Run = group(Run)
    model: Model = group(Model)
    data: Data = group(Data)
    joint: bool = flag(False, "search the steps jointly as well: single steps interfere")
    sigmas: tuple[Amount, ...] = flag(
        (3.0, 2.0), "standard deviations by which the margins of every name must lie below 0; a joint search for each value"
    )
    max_forget: Fraction = flag(
        MAX_FORGET, "forget accuracy up to which a name counts as forgotten, on the validation split"
    )
    out: Folder = flag("", "folder to write instead of {result-dir}/clip/multi")
    part: str = flag("", "subfolder of it, for other names beside those of an earlier run")
    readme: str = flag("", "Markdown file whose multi block is filled from all parts in --out")


@dataclass(frozen=True)
class Study(Following):
    """a6_study.py."""

    run: Run = group(Run, result_dir="results/study")
    model: Model = group(Model)
    data: Data = group(Data)
    rule: ForgetRule = group(ForgetRule)
    laion_dir: str = flag("data/laion/laion400m", "shards that tell which source image a picture shows")
    variant: tuple[str, ...] = flag((), "only these variants; without it all", choices=tuple(STUDY_VARIANTS))
    quick: bool = flag(False, "the quick variants, on two identities and one object")
    jobs: Count = flag(1, "processes, each with names and threads of its own")
    engine: str = flag(LOCAL, "where the processes run: here, or on a Ray cluster", choices=(LOCAL, "ray"))
    force: bool = flag(False, "do again what is finished")


@dataclass(frozen=True)
class Benchmark(Following):
    """a8_benchmark.py."""

    run: Run = group(Run, result_dir="results/benchmark")
    frozen: str = flag("data/emoji/protocol.json", "the frozen protocol")
    tar_dir: str = flag("data/demo/tar_files", "folder of the curated forget sets")
    train_data: str = flag("data/demo/laion/laion400m/00000.tar", "tar of the retain set")
    val_data: str = flag("data/demo/celeba", "CelebA folder")
    imagenet_val: str = flag("data/demo/ImageNet/val", "ImageNet validation folder")
    quick: bool = flag(False, "its quick run instead of all runs")
    plan: bool = flag(False, "print the command lines of the runs, and run nothing")
    out: Folder = flag("", "folder of table.csv, the page and its plots; without it {result-dir}/report")


@dataclass(frozen=True)
class Durability(Following):
    """a7_lasting.py."""

    run: Run = group(Run)
    model: Model = group(Model)
    data: Data = group(Data)
    records: str = flag("", "folder of the records and deltas; without it {result-dir}/clip")
    unlearn_method: tuple[str, ...] = flag((), "methods to test; without it all on record")
    aliases: tuple[str, ...] = flag((), "CSVs with the columns name, alias: synonyms of the names")
    retain_pictures: Whole = flag(1000, "pictures of each task that measure retained accuracy; 0: all")
    relearn_pictures: tuple[Whole, ...] = flag((2, 8, 0), "forget pictures in relearning; 0: all of them")
    relearn_steps: tuple[Count, ...] = flag((1, 2, 5, 10, 20), "optimiser steps after which relearning is scored")
    relearn_lr: Positive = flag(1e-5, "AdamW's constant learning rate in relearning")
    gold: tuple[str, ...] = flag(
        (), "folders of models that never saw some of the names (training.json says which): tested without an edit"
    )
    jobs: Count = flag(1, "processes, each with names, a model and threads of its own")
    force: bool = flag(False, "do again what is valid")
    report: bool = flag(False, "run nothing: report and plot what is there")
    out: Folder = flag("", "folder of the report and its rows instead of {result-dir}/lasting")
    readme: str = flag("", "Markdown file whose lasting block is filled")


@dataclass(frozen=True)
class Report(Following):
    """a4_report.py."""

    run: Run = group(Run)
    out: Folder = flag("", "folder to write instead of {result-dir}/clip/report")
    readme: str = flag("", "Markdown file whose results blocks are filled from the table")
    study: str = flag("", "folder of a study's runs.parquet: report on it instead")
    report: str = flag("", "the study's report; without it REPORT.md beside its table")
    samples: str = flag("", "folder of the gradients of a1 --checkpoints: report on how many pairs are enough instead")


@dataclass(frozen=True)
class Pipeline:
    """Which pipeline is meant and how it makes pictures."""

    pipeline: str = flag("sd-legacy/stable-diffusion-v1-5", "diffusers id or folder")
    clip_model_id: str = flag("openai/clip-vit-large-patch14", "the CLIP of its text tower")
    denoising_steps: Count = flag(100, "denoising steps of the pipeline's own scheduler")
    guidance: Amount = flag(9.0, "classifier-free guidance scale")
    size: Whole = flag(0, "side of the pictures in pixels; 0: the pipeline's own")
    generate_batch_size: Count = flag(16, "pictures made at once")


@dataclass(frozen=True)
class Concepts:
    """Styles and objects."""

    style: tuple[str, ...] = flag((), "styles", nargs="*", parse=checked_name)
    object: tuple[str, ...] = flag((), "objects, characters or people", nargs="*", parse=checked_name)


@dataclass(frozen=True)
class Judging:
    """The prompts, and what judges the pictures made from them."""

    prompts: str = flag(f"{CANVAS}/prompts.csv", "CSV of the prompts and their seeds")
    classifiers: str = flag(f"{CANVAS}/classifiers", "folder of the style classifier and the object classifier")


@dataclass(frozen=True)
class ForgetPipeline(Following):
    """b2_unlearn_sd.py."""

    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline)
    concepts: Concepts = group(Concepts)
    judging: Judging = group(Judging)
    method: str = flag("slug", "a variant of SLUG, or a baseline", choices=lambda: _methods("pipeline"))
    select: str = flag("classifiers", "what judges the pictures", choices=("classifiers", "clip"))
    wanted: Fraction = flag(
        help="UA (unlearning accuracy) on the validation split from which on a step counts as forgetting", by="canvas_wanted"
    )
    evaluations: Count = flag(help="steps evaluated on each layer, at most", by="canvas_evaluations")
    fronts: Count = flag(help="Pareto fronts searched, one after the other until a step forgets", by="canvas_fronts")
    whole_groups: bool = flag(False, "move q, k, v, and both fc layers, only together")
    layer: str = flag("", "with --step: take this layer, as records name it, without a search")
    step: Finite = flag(0.0, "with --layer: this step")
    rounds: Count = flag(1, f"layers of SLUG edited at most, one in each round; {ROUNDS} for a --method ending in _rounds")
    rounds_wanted: Fraction = flag(0.98, "as --wanted, in the rounds after the first")
    select_others: Count = flag(100, "pictures of other concepts that a step is judged by, at most")
    keep: Fraction = flag(
        help="fraction of the unedited IRA (in-domain retain accuracy) and CRA (cross-domain) that a step must leave",
        by="canvas_keep",
    )
    lora_residual: Fraction = flag(0.02, "fraction of the edit that its adapter may leave out")
    batch_size: Pairs = flag(16, "pairs in a batch of the gradient pass")
    tar_dir: str = flag("data/tar_files", "folder of the forget sets' tars")
    train_data: str = flag("data/laion/laion400m/00000.tar", "tar of the retain set")
    part: tuple[Count, Count] = flag((1, 1), "only the I-th of N parts of the concepts", nargs=2, metavar=("I", "N"))
    force: bool = flag(False, "do again what is valid")

    def __post_init__(self) -> None:
        super().__post_init__()
        from slug import methods  # here: methods import settings

        method = methods.get(self.method)
        if method.rounds:  # the same as the plain variant with --rounds
            object.__setattr__(self, "method", method.variant.slug)
            object.__setattr__(self, "rounds", self.rounds if self.rounds > 1 else ROUNDS)
        by_slug = method.searched
        if self.rounds > 1 and not by_slug:
            raise SlugError(f"only SLUG has --rounds; leave it out for {self.method}")
        if bool(self.layer) != bool(self.step):
            raise SlugError("--layer and --step go together: a known step, taken without a search")
        if self.layer and (self.rounds > 1 or not by_slug):
            raise SlugError("--layer and --step are for one step of SLUG; leave out --rounds, and choose a variant of SLUG")

    @property
    def label(self) -> str:
        """The method's name in records and tables."""
        return f"{self.method}_rounds" if self.rounds > 1 else self.method


@dataclass(frozen=True)
class Assistant:
    """Which vision-language model is meant and how it answers."""

    vlm: str = flag("llava-hf/llava-1.5-7b-hf", "transformers id or folder of a LLaVA")
    clip_model_id: str = flag("openai/clip-vit-large-patch14-336", "the CLIP of its vision tower")
    four_bit: bool = flag(False, "load the language model in 4 bits (CUDA, bitsandbytes)")
    device_map: str = flag("", "transformers' device_map, e.g. auto; without it all is on --device")
    answer_batch_size: Count = flag(32, "questions answered at once")
    max_new_tokens: Count = flag(64, "tokens of an answer, at most")


@dataclass(frozen=True)
class ForgetAssistant(Following):
    """c1_unlearn_vlm.py."""

    run: Run = group(Run)
    assistant: Assistant = group(Assistant)
    unlearn_method: str = flag("slug", "variant of SLUG, by the method's or the gradient's name", choices=_variants)
    sources: Sources = group(Sources)
    grad_checkpointing: bool = flag(False, "compute activations twice: less memory, a third more time")
    force: bool = flag(False, "do again what is valid")
    batch_size: Pairs = flag(16, "pairs in a batch of the gradient pass")
    questions: str = flag("data/vlm/questions.jsonl", "questions of both splits")
    allow_missing: Fraction = flag(0.01, "fraction of the questions' pictures that may be missing or damaged")
    wanted: Fraction = flag(
        0.0, "forget accuracy on the validation split up to which a step counts as forgetting", aliases=("--max-forget",)
    )
    sigmas: Amount = flag(3.0, "standard deviations by which the margins of a forgotten name must lie below 0")
    evaluations: Count = flag(8, "steps evaluated on each layer, at most")
    fronts: Count = flag(3, "Pareto fronts searched, one after the other until a step forgets and retains enough")
    lost: Fraction = flag(0.02, "fraction of retained accuracy that a step may lose to be good enough")
    whole_groups: bool = flag(False, "move q, k, v, and both fc layers, only together")
    jobs: Count = flag(1, "processes, each with names, a model and threads of its own")
    log_all: bool = flag(False, "ask every question at every step")
