"""Gradient files: where they lie, what they were made from, and how they are written and checked.

results/grads/{name}_{tag}/ holds a name's forget gradients and its retain gradient. The latter is that of the whole retain
set, which lies in results/grads/retain_{tag}/, with the batches that hold pairs of the name computed again without these:
what else is forgotten in a call makes no difference. By the published protocol it is a link to the one gradient of the
pairs that say none of the call's names: train_grads.pt, and train_grads-{hash}.pt of later calls for other names. A file is
a plain dict {parameter name: tensor}; the JSON beside it is its fingerprint. A file is used only where its fingerprint is
what is asked for and its content is what that says.
"""

import functools
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slug import cli, distributed, files
from slug.artifacts import retain_gradient
from slug.core import gradients, losses, preconditioning
from slug.core.gradients import BOTH
from slug.core.variants import Variant
from slug.data.names import Matcher, distinct, plain_name
from slug.data.pairs import Pairs, load_pairs, read_tar, saying, some
from slug.errors import SlugError
from slug.models.clip import Clip
from slug.protocols import OURS, Protocol
from slug.settings import ForgetAssistant, Gradients, Sources, TextGradients

CONVENTION = "gradient of the forget loss 1 - cos; a positive step ADDS it"
STAGES = {
    BOTH: ("src/clip/a1_compute_grad.py", Gradients),
    "language": ("src/sd/b1_compute_grad.py", TextGradients),
    "vision": ("src/vlm/c1_unlearn_vlm.py", ForgetAssistant),
}


POINTS = ("batch_means", "train_mode", "training_crops")  # of a protocol, on which gradients depend


class Loaded(NamedTuple):
    """A name's gradients, {parameter name: tensor} each."""

    forget: dict[str, torch.Tensor]
    retain: dict[str, torch.Tensor]
    tar: Path  # of the forget set
    left_out: list[str]  # names whose pairs the retain set leaves out


def model_hash(clip: Clip) -> str:
    """Hash of all parameters: which model a gradient belongs to."""
    return files.tensor_hash(clip.parameters)


def save(path: Path, grads: Mapping[str, torch.Tensor], fingerprint: Mapping[str, Any]) -> None:
    """Write {name: tensor} as a plain dict, and its fingerprint as JSON beside it, with the file's own hash."""
    with files.replacing(path) as temporary, temporary.open("wb") as f:
        torch.save(grads, f)  # to an open file: torch writes the name of a path into the bytes
    files.write_json(path.with_suffix(".json"), {**fingerprint, "sha256": files.file_hash(path)})


def is_valid(path: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a gradient file is there, whole, and has this fingerprint."""
    try:
        found = files.read_object(path.with_suffix(".json"))
    except SlugError:
        return False
    same = all(found.get(k) == v for k, v in expected.items())
    return path.is_file() and same and found.get("sha256") == files.file_hash(path)


def load(path: Path, expected: Mapping[str, Any], remedy: str) -> dict[str, torch.Tensor]:
    """Read a gradient file whose fingerprint has what is expected. SlugError if it is missing, damaged or stale.

    `remedy` is the command that makes the file, for the message.
    """
    if not path.is_file():
        raise SlugError(f"no gradients at {path}; make them with: {remedy}")
    found = _fingerprint(path, remedy)
    stale = [k for k, v in expected.items() if found.get(k) != v]
    if stale:
        raise SlugError(f"{path} is stale ({', '.join(stale)} differ from this run's); make it again with: {remedy}")
    if found.get("sha256") != files.file_hash(path):
        raise SlugError(f"{path} is damaged: its sha256 is not that of its fingerprint; make it again with: {remedy}")
    grads = files.read_tensors(path, f"make it again with: {remedy}", mmap=True)
    if not isinstance(grads, dict) or not all(torch.is_tensor(g) and g.is_floating_point() for g in grads.values()):
        raise SlugError(f"{path} holds no gradients, {{parameter name: tensor}}; make it again with: {remedy}")
    if not all(torch.isfinite(g).all() for g in grads.values()):
        raise SlugError(f"{path} holds NaN or infinity; make it again with: {remedy}")
    return grads


def _fingerprint(path: Path, remedy: str) -> dict[str, Any]:
    """The fingerprint of a gradient file. SlugError if it is missing or damaged."""
    try:
        return files.read_object(path.with_suffix(".json"))
    except SlugError as err:
        raise SlugError(f"{path} has no sound fingerprint beside it ({err}); make it again with: {remedy}") from err


def _noted(path: Path, key: str, kind: type | tuple[type, ...], remedy: str) -> Any:
    """An entry of a gradient file's fingerprint. SlugError where it is missing or of another kind."""
    value = _fingerprint(path, remedy).get(key)
    if not isinstance(value, kind):
        raise SlugError(f"the fingerprint of {path} does not say {key}; make it again with: {remedy}")
    return value


class GradientFiles:
    """The gradient files of one model for some names."""

    def __init__(
        self,
        clip: Clip,
        sources: Sources,
        result_dir: str,
        batch_size: int,
        *,
        encoder: str = BOTH,
        flags: Mapping[str, Any] | None = None,
        protocol: Protocol = OURS,
    ) -> None:
        """`encoder` is "vision" or "language" for the parameters of that tower alone; `flags` are further flags of this run,
        {field: value}, for the commands that messages give as a remedy; `protocol` says how gradients are taken."""
        self.flags = flags or {}
        self.clip, self.sources, self.result_dir, self.protocol = clip, sources, result_dir, protocol
        self.batch_size, self.encoder = batch_size, encoder
        self.names = distinct(sources.celeb_name)

    @functools.cached_property
    def model_hash(self) -> str:
        """Hash of the model that the gradients belong to, at the weights of the first call."""
        return model_hash(self.clip)

    def folder(self, name: str) -> Path:
        """results/grads/{name}_{tag}."""
        return files.resolve(self.result_dir) / "grads" / f"{files.name_stem(name)}_{self.clip.tag}"

    def path(self, name: str, side: str, variant: Variant) -> Path:
        """A name's gradient file; `side` is "forget", or "train" for the retain set."""
        return self.folder(name) / variant.file(side)

    @property
    def retain_folder(self) -> Path:
        """Where the one retain gradient lies; pipelines and assistants may share a CLIP, and each needs one encoder."""
        return self.folder("retain" if self.encoder == BOTH else f"retain-{self.encoder}")

    def tar(self, name: str) -> Path:
        """The forget set of a name: --forget-data (with one name only), else {tar-dir}/{name}.tar. SlugError if missing."""
        if self.sources.forget_data and len(self.names) > 1:
            raise SlugError("--forget-data is the tar of ONE name; with several names use --tar-dir")
        file = f"{self.sources.tar_dir}/{files.name_stem(name)}.tar"
        words = ["src/clip/a0_create_tar.py", "--name", name]
        if self.sources.tar_dir != Sources.tar_dir:
            words += ["--tar-dir", self.sources.tar_dir]
        return files.existing(self.sources.forget_data or file, "forget set", f"make it with: python {shlex.join(words)}")

    def remedy(self, variant: Variant) -> str:
        """The command that makes the gradients of all names of this run."""
        script, kind = STAGES[self.encoder]
        given = {**self.flags, **cli.values(self.sources), "celeb_name": tuple(self.names), "result_dir": self.result_dir}
        method = variant.gradient if kind is ForgetAssistant else (variant.gradient,)
        return cli.command(script, kind, {**given, "batch_size": self.batch_size, "unlearn_method": method})

    @property
    def retain_tar(self) -> Path:
        """The retain set. SlugError if it is missing."""
        return files.existing(self.sources.train_data, "retain set", "give --train-data, a tar of pairs")

    def mark(self, tar: Path, loss: Any, variant: Variant, left_out: Iterable[str] = ()) -> dict[str, Any]:
        """What a gradient file of these pairs, without those of the names `left_out`, depends on."""
        mark = {"model": self.model_hash, "data": files.file_hash(tar), "loss_name": loss.__name__}
        mark |= {"batch_size": self.batch_size, "square": variant.squared, "left_out": list(left_out)}
        how = {p: getattr(self.protocol, p) for p in POINTS}
        how = {} if how == {p: getattr(OURS, p) for p in POINTS} else {"protocol": how}
        fixed = loss is losses.contrastive and tar == self.retain_tar and not self.protocol.all_names_left_out
        return mark | {"encoder": self.encoder} | how | ({"batches": "fixed"} if fixed else {})

    def left_out(self, name: str) -> list[str]:
        """The names whose pairs are no retained pairs where a name is forgotten."""
        return sorted(map(plain_name, self.names)) if self.protocol.all_names_left_out else [plain_name(name)]

    @property
    def left_out_of_all(self) -> list[str]:
        """The names whose pairs no name of this run retains."""
        return self.left_out(self.names[0]) if self.protocol.all_names_left_out else []

    def spared(self, name: str, variant: Variant) -> list[str]:
        """Names whose forget sets count as retained data, by the file of a name's gradient."""
        path = self.path(name, "forget", variant).with_suffix(".json")
        if not variant.preconditioned or not path.is_file() or "spared" not in _fingerprint(path, self.remedy(variant)):
            return []
        return list(_noted(path, "spared", dict, self.remedy(variant)))

    def conditioned(self, name: str, spared: Iterable[str]) -> dict[str, Any]:
        """What a preconditioned gradient of a name depends on besides."""
        mark = {"retain_data": files.file_hash(self.retain_tar), "retain_left_out": [plain_name(name)]}
        hashes = {n: files.file_hash(self.tar(n)) for n in spared}
        return mark | {"damping": preconditioning.DAMPING} | ({"spared": hashes} if hashes else {})

    def hashes(self, name: str, variant: Variant) -> dict[str, Any]:
        """Hashes of the sets that a name's gradients were taken from: a record found along them is stale where these
        differ."""
        names = [name, *self.spared(name, variant)]
        forget = {n: files.file_hash(self.tar(n)) for n in names}
        return {"retain_hash": files.file_hash(self.retain_tar), "forget_hashes": forget}

    def load(self, name: str, variant: Variant) -> Loaded:
        """A name's gradients, after checking that they belong to this model and these sets. SlugError where one is missing,
        damaged or stale, or where the retain gradient holds pairs of the name."""
        remedy, tar, train = self.remedy(variant), self.tar(name), self.path(name, "train", variant)
        retain_tar = self.retain_tar
        left_out = _noted(train, "left_out", list, remedy) if train.is_file() else []
        if plain_name(name) not in left_out and train.is_file():
            raise SlugError(
                f"the retain gradient {train} was computed on pairs that show {name}, which is to be forgotten; "
                f"make it again with: {remedy}"
            )
        mark = self.mark(tar, losses.forget(variant), variant)
        if variant.preconditioned:
            mark |= self.conditioned(name, self.spared(name, variant))
        forget = load(self.path(name, "forget", variant), mark, remedy)
        retain = load(train, self.mark(retain_tar, losses.contrastive, variant, left_out), remedy)
        return Loaded(forget, retain, tar, left_out)

    def seconds(self, name: str, variant: Variant, side: str = "forget") -> float:
        """Seconds that a gradient pass took, by its file; on the retain side with the pass for preconditioning."""
        remedy = self.remedy(variant)
        spent = _noted(self.path(name, side, variant), "gradient_s", (int, float), remedy)
        if side == "train" and variant.preconditioned:
            spent += _noted(self.path(name, "forget", variant), "moments_s", (int, float), remedy)
        return spent

    def pairs(self, tar: Path, left_out: Iterable[str], workers: int) -> Pairs:
        """The pairs of a tar as their gradient is taken, without those that say a name of `left_out`."""
        return self._pairs(tar, tuple(left_out), workers)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (the retain set is read for its own gradient, then for the names')
    def _pairs(self, tar: Path, left_out: tuple[str, ...], workers: int) -> Pairs:
        cropped = self.protocol.training_crops and tar == self.retain_tar
        transform = self.clip.training_transform if cropped else self.clip.transform
        found = load_pairs(tar, transform, leave_out=Matcher(left_out) if left_out else None, workers=workers)
        if not cropped:
            return found
        return some(found, torch.randperm(len(found.captions), generator=torch.Generator().manual_seed(0)).tolist())

    # ------------------------------------------------------------------------------------------------------- writing

    def write(self, variant: Variant, settings: Mapping[str, Any], *, workers: int = 0, force: bool = False) -> None:
        """Write the forget gradient and the retain gradient of every name. Keep valid files.

        `settings` are noted in the fingerprints; `workers` processes decode pictures.
        """
        plain, retain_tar = variant.plain, self.retain_tar
        if not self.protocol.all_names_left_out:
            self._check_retained()
        for name in self.names:
            path = self.path(name, "forget", plain)
            self._write(path, name, self.tar(name), losses.forget(plain), plain, [], settings, workers, force)
        left_out = self.left_out_of_all
        mark = self.mark(retain_tar, losses.contrastive, plain, left_out)
        where = functools.partial(retain_gradient.path, self.retain_folder / plain.file("train"), mark)
        how = (losses.contrastive, plain, left_out, settings, workers, force)
        retain = self._write(where(), "retain set", retain_tar, *how, where=functools.partial(where, claim=True))
        if not self.protocol.all_names_left_out:
            self._write_own(retain, plain, workers, force)
        elif distributed.mine()[0] == 0:
            for name in self.names:
                for end in (".pt", ".json"):
                    retain_gradient.link(retain.with_suffix(end), self.path(name, "train", plain).with_suffix(end))
        if variant.preconditioned:
            from slug.artifacts import preconditioned_gradients  # it needs this module

            preconditioned_gradients.write(self, variant, workers, force)

    def _write(
        self,
        path: Path,
        subject: str,
        tar: Path,
        loss: Any,
        variant: Variant,
        left_out: list[str],
        settings: Mapping[str, Any],
        workers: int,
        force: bool,
        where: Callable[[], Path] | None = None,
    ) -> Path:
        """Write a gradient file unless it is valid. Returns its path: `path`, or what `where` says when it is written."""
        mark = self.mark(tar, loss, variant, left_out)
        if not force and is_valid(path, mark):
            print(f"{subject}: valid, kept: {path}")
            return path
        started = time.perf_counter()
        pairs = self.pairs(tar, left_out, workers)
        decoded = time.perf_counter()
        how: dict[str, Any] = {"batch_size": self.batch_size, "square": variant.squared, "encoder": self.encoder}
        how |= {"protocol": self.protocol}
        grads, figures = gradients.compute(self.clip, pairs, loss, **how, desc=f"{subject}: gradient")
        spent = {"decode_s": decoded - started, "gradient_s": time.perf_counter() - decoded}
        if distributed.mine()[0] == 0:
            about = {"broken": pairs.broken, "convention": CONVENTION, "settings": settings, "versions": cli.versions()}
            path = where() if where else path
            if retain_gradient.of_another_model(path, mark["model"]):
                print(f"note: {path} was of other weights of {self.clip.label}, and is replaced")
            save(path, grads, {**mark, **figures, **spent, **about})
            counts = f"{len(pairs.captions)} pairs, {pairs.broken} broken pictures left out"
            print(f"{subject}: {counts}, loss {figures['loss']:.4f} -> {path}")
        return path

    def _check_retained(self) -> None:
        """SlugError, before anything is written, where a name leaves nothing to retain."""
        captions = [caption for *_, caption in read_tar(self.retain_tar)]
        for name in self.names:
            matcher = Matcher(self.left_out(name))
            if captions and all(matcher.find(caption) for caption in captions):
                raise SlugError(
                    f"{self.retain_tar}: every caption says {plain_name(name)}; give a retain set of other things"
                )

    def _write_own(self, whole: Path, variant: Variant, workers: int, force: bool) -> None:
        """Write every name's retain gradient from that of the whole retain set, the file `whole`; keep valid files."""
        distributed.largest(0, self.clip.device)  # all wait until the first process has written it
        about = files.read_object(whole.with_suffix(".json"))
        wanted = {}
        for name in self.names:
            mark = self.mark(self.retain_tar, losses.contrastive, variant, self.left_out(name)) | {"whole": about["sha256"]}
            if force or not is_valid(self.path(name, "train", variant), mark):
                wanted[name] = mark
        if not wanted:
            return
        pairs = self.pairs(self.retain_tar, [], workers)
        grads = load(whole, self.mark(self.retain_tar, losses.contrastive, variant), self.remedy(variant))
        how: dict[str, Any] = {"square": variant.squared, "encoder": self.encoder, "protocol": self.protocol}
        for name, mark in wanted.items():
            started, path, rows = time.perf_counter(), self.path(name, "train", variant), saying(pairs, self.left_out(name))
            desc = f"retain set without {name}: gradient"
            found, figures = gradients.without(self.clip, pairs, rows, grads, about, **how, desc=desc)
            if distributed.mine()[0] == 0:
                # What stood there may be a link to the gradient of several names, which is not to be written through.
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                spent = {"gradient_s": about["gradient_s"] + time.perf_counter() - started}
                save(path, found, about | mark | figures | spent)
