"""The command `slug`: forget something by your own pictures, and what is done with edits.

slug forget  --model MODEL --name "Taylor Swift" --images photos/ --retain retain.tar --out out/
slug compare --model MODEL --delta out/Taylor_Swift.delta.safetensors --pictures me.jpg --names "Taylor Swift" Adele
slug report  --delta out/Taylor_Swift.delta.safetensors --out report.html
slug apply   --delta out/Taylor_Swift.delta.safetensors --model-dir MODEL --out EDITED
slug revert  --delta Taylor_Swift.delta.safetensors --model-dir EDITED --out MODEL
slug seal    --model-dir EDITED --out SEALED                 nothing is left to revert with: to give away
slug list    --model-dir EDITED                              the deltas in it
slug adapter --delta X.delta.safetensors --out ADAPTER       LoRA, for peft
slug methods                                                 every unlearning method

Relative paths start at the working directory. Each command explains its flags with --help.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slug import cli, delta_commands, protocols
from slug.cli import Count, Pairs, Seed, Whole, flag, group
from slug.errors import SlugError
from slug.files import checked_name
from slug.settings import Forget, ForgetRule


def check_evaluate(given: Sequence[str]) -> None:
    """SlugError unless each labelled set is given as NAME=PATH."""
    wrong = next((e for e in given if "=" not in e), None)
    if wrong is not None:
        raise SlugError(f"--evaluate takes NAME=PATH, e.g. celeba=data/celeba, not {wrong}")


@dataclass(frozen=True)
class Which:
    """The CLIP that is meant."""

    model: str = flag(help="model folder, open_clip architecture with --pretrained, or Hugging Face id")
    pretrained: str = flag("", "open_clip tag or weight file; 'random' for untrained weights")
    device: str = flag("auto", "cpu, cuda, cuda:1, ...; auto takes CUDA where there is one")


def _methods() -> Sequence[str]:
    from slug import methods  # here: --help of the other commands needs no registry

    return methods.names(methods.CLIP)


@dataclass(frozen=True)
class ForgetCommand:
    """slug forget."""

    which: Which = group(Which)
    name: tuple[str, ...] = flag(help="what is forgotten; several names get an edit each", parse=checked_name)
    images: tuple[str, ...] = flag(help="pictures of it: a folder, a tar of pairs, a CSV; one for each name")
    retain: tuple[str, ...] = flag(help="pairs of other things: tars, a folder with captions, a CSV")
    classes: str = flag("", "text file of the names it competes with; without it ImageNet's and those in retain captions")
    evaluate: tuple[str, ...] = flag((), "labelled sets as NAME=PATH, on which retention is measured as well")
    method: str = flag("", "method; without it slug, for several names slug_ws", choices=_methods)
    out: str = flag("slug-out", "folder to write: for each name a delta, a report, plots and a record")
    evaluations: Count = flag(10, "steps evaluated on each layer, at most")
    fronts: Count = flag(1, "Pareto fronts of each encoder whose layers are searched")
    rule: ForgetRule = group(ForgetRule)
    seed: Seed = flag(0, "seed of the splits")
    batch_size: Pairs = flag(16, "pairs in a batch of the gradient pass")
    eval_batch_size: Count = flag(256, "pictures or texts in a batch of evaluations")
    epochs: Count = flag(10, "passes over the sets, of a baseline that trains")
    workers: Whole = flag(0, "processes that decode pictures")

    def __post_init__(self) -> None:
        if len(self.name) > 1 and len(self.images) != len(self.name):
            raise SlugError(f"{len(self.name)} names need as many --images, one for each; {len(self.images)} are given")
        check_evaluate(self.evaluate)


@dataclass(frozen=True)
class ForgetStage(Forget):
    """a2_unlearn_slug.py: with --images by own pictures, else on evaluation sets."""

    images: tuple[str, ...] = flag(
        (), "judge by held-out pictures of the name instead of evaluation sets: a folder, a tar or a CSV for each name"
    )
    classes: str = flag("", "with --images: text file of the names that it competes with")
    evaluate: tuple[str, ...] = flag((), "with --images: labelled sets as NAME=PATH, on which retention is measured as well")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images and self.run.rules != protocols.OURS:
            raise SlugError("--protocol paper works with CelebA and ImageNet only; leave it out together with --images")
        if (self.classes or self.evaluate) and not self.images:
            raise SlugError(
                "--classes and --evaluate need --images; without it the stage evaluates on --val-data and --imagenet-val"
            )
        if self.images and len(self.images) != len(self.data.celeb_name):
            raise SlugError(f"{len(self.data.celeb_name)} names need as many --images, one for each")
        check_evaluate(self.evaluate)


@dataclass(frozen=True)
class CompareCommand:
    """slug compare."""

    which: Which = group(Which)
    delta: str = flag(help="a .delta.safetensors file")
    pictures: tuple[str, ...] = flag(help="picture files")
    names: tuple[str, ...] = flag(help="names that the model may choose from")
    top: Count = flag(5, "answers of each picture that are shown")
    out: str = flag("", "picture (.png, .pdf) or table (.csv) to write")


@dataclass(frozen=True)
class ReportCommand:
    """slug report."""

    delta: str = flag(help="a .delta.safetensors file that slug forget made")
    out: str = flag("report.html", "HTML page to write")


@dataclass(frozen=True)
class MethodsCommand:
    """slug methods."""


def forget(settings: ForgetCommand) -> None:
    """Find an edit that forgets what pictures show, and write it with its report."""
    from slug import face, files

    out = Path(face.here(settings.out))
    files.check_writable(out)
    model = _load(settings.which)
    several = len(settings.name) > 1
    if several:
        what: Any = dict(zip(settings.name, settings.images, strict=True))
    else:
        what = settings.name[0]
    images = None if several else list(settings.images)
    evaluate = dict(e.split("=", 1) for e in settings.evaluate)
    how: dict[str, Any] = {
        "evaluations": settings.evaluations,
        "fronts": settings.fronts,
        "seed": settings.seed,
        "epochs": settings.epochs,
    }
    how |= {"batch_size": settings.batch_size, "eval_batch_size": settings.eval_batch_size, "workers": settings.workers}
    how |= cli.flat(settings.rule)
    retain, classes = list(settings.retain), settings.classes or None
    found = face.forget(model, what, images, retain, classes=classes, evaluate=evaluate, method=settings.method, **how)
    for edit in found.values() if several else [found]:
        write(edit, out)
        print(edit)
        print(f"-> {out / stem(edit)}.html")


def of_stage(settings: ForgetStage) -> None:
    """As `forget`, by the flags of a2_unlearn_slug.py, into {result-dir}/clip/own/; paths start at the repository."""
    from slug import face, files, models, system

    run, data, search = settings.run, settings.data, settings.search
    out = files.check_writable(f"{run.result_dir}/clip/own")
    model = models.from_settings(settings.model, run.precision, system.settle(run.device, run.seed))
    images = dict(zip(data.celeb_name, (str(files.resolve(i)) for i in settings.images), strict=True))
    evaluate = {name: str(files.resolve(path)) for name, path in (e.split("=", 1) for e in settings.evaluate)}
    classes = str(files.resolve(settings.classes)) if settings.classes else None
    how: dict[str, Any] = {"method": settings.unlearn_method, "classes": classes, "evaluate": evaluate, "seed": run.seed}
    how |= {"evaluations": search.evaluations, "fronts": search.fronts, "workers": run.workers}
    how |= {"batch_size": settings.model.batch_size, "eval_batch_size": settings.model.eval_batch_size}
    how |= cli.flat(settings.rule)
    for edit in face.forget(model, images, retain=str(files.resolve(data.train_data)), **how).values():
        write(edit, out)
        print(edit)
        print(f"-> {out / stem(edit)}.html")


def stem(edit: Any) -> str:
    """The beginning of the names of an edit's files."""
    from slug import files

    return files.name_stem(edit.name.replace(" ", "_"))


def write(edit: Any, out: Path) -> None:
    """Write an edit's delta, record, plots and report into a folder."""
    from slug import files
    from slug.reports.forgetting_plots import PLOTS

    name = stem(edit)
    for kind in PLOTS:
        if kind != "pareto" or edit.record["layers"]:
            edit.plot(kind, str(out / f"{name}-{kind}.png"))
    edit.save(str(out / f"{name}.delta.safetensors"))
    files.write_json(out / f"{name}.json", edit.record)
    edit.report(str(out / f"{name}.html"))


def compare(settings: CompareCommand) -> None:
    """Say what a model calls pictures before and after an edit."""
    from slug import face

    edit = face.load_edit(settings.delta)
    found = edit.compare(list(settings.pictures), list(settings.names), model=_load(settings.which), top=settings.top)
    print(found)
    if settings.out:
        print(f"-> {found.save(settings.out)}")


def report(settings: ReportCommand) -> None:
    """Write the report of an edit from its delta file."""
    from slug import face

    print(f"-> {face.load_edit(settings.delta).report(settings.out)}")


def list_methods(settings: MethodsCommand) -> None:
    """List every unlearning method: its name, what it edits, and where it is published."""
    from slug import methods

    for name in methods.names():
        found = methods.get(name)
        print(f"{name:20} {', '.join(found.hosts):30} {found.citation}")


def _load(which: Which) -> Any:
    from slug import face

    return face.load(which.model, which.pretrained, device=which.device)


COMMANDS: dict[str, tuple[Any, type]] = {
    "forget": (forget, ForgetCommand),
    "compare": (compare, CompareCommand),
    "report": (report, ReportCommand),
    "methods": (list_methods, MethodsCommand),
}


def run(argv: Sequence[str] | None = None) -> None:
    """Run a command line; SlugError where it cannot be done."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
    elif argv[0] in delta_commands.COMMANDS:
        delta_commands.run(argv, at=lambda path: Path(path).expanduser().absolute(), prog=f"slug {argv[0]}")
    elif argv[0] in COMMANDS:
        function, kind = COMMANDS[argv[0]]
        function(cli.parse(function.__doc__, kind, argv[1:], prog=f"slug {argv[0]}"))
    else:
        raise SlugError(f"there is no command {argv[0]!r}; choose from {', '.join([*COMMANDS, *delta_commands.COMMANDS])}")


def main() -> None:
    """The entry point: an expected failure prints one line and ends with exit code 2."""
    cli.exit_with(run)
