#!/usr/bin/env python
"""Estimates what Table 1 will take: time, memory and disk of every stage of scripts/run_all_clip.sh.

Example: python scripts/tools/estimate.py --model ViT-B-32 --celeb-name Elon_Musk Taylor_Swift    measures once, then prints
         python scripts/tools/estimate.py --stored --model ViT-B-32                               never measures
It measures a few batches of the model with random weights on random pictures and keeps this sample as JSON under
{result-dir}/estimate/. With --stored it uses this machine's sample or else the committed one (results/bench/estimate/), and
says where that was measured. It counts the data that are there and assumes the paper's numbers for the rest. Downloads
nothing.

A time is a sum of counts multiplied by seconds; plots, start-up and waiting for disks are left out. The time of the search
is an upper bound: it scores every step on every picture, where the real search stops early. Memory is that of tensors:
weights, gradients, optimiser, and what a batch keeps for its backward pass; the program itself and kept activations
(--cache-gb) come on top. The column `h at 10 TFLOP/s` is arithmetic, operations divided by an assumed rate (--tflops), not
a measurement.
"""

import contextlib
import io
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from slug import cli, files, system
from slug.cli import flag, group
from slug.core import gradients
from slug.data import checks, evaluation_sets
from slug.data.images import decode
from slug.data.names import Matcher, clean_name, plain_name
from slug.data.pairs import Pairs, TarMembers
from slug.errors import SlugError
from slug.evaluation import zeroshot
from slug.models import towers
from slug.settings import Data, Following, Model, Run

COMMITTED = files.ROOT / "results" / "bench" / "estimate"
NAMES = ("Elon_Musk", "Jeff_Bezos", "Taylor_Swift", "Kim_Kardashian", "Mark_Zuckerberg")  # the paper's
HALF = 0.5  # part of a tower that runs after an edit, on average; and of the pictures in each split


class Counts(NamedTuple):
    """How many of everything there are."""

    names: int
    compared: int  # names that the baselines are run on
    captions: int  # of all shards; 0: not known
    forget: int  # pairs, of all names together
    retain: int
    identities: int  # pictures
    objects: int
    identity_texts: int
    object_texts: int
    assumed: tuple[str, ...] = ()  # which of these are the paper's, not counted


class Stage(NamedTuple):
    """One row of the plan; None: not estimated."""

    stage: str
    on: str
    seconds: float | None
    flop: float
    memory: float | None  # bytes
    disk: float | None  # bytes


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run, workers=4)  # defaults as in the profile "paper"
    model: Model = group(Model)
    sets: Data = group(Data, celeb_name=NAMES, imagenet_share=0.05)
    compare_names: tuple[str, ...] = flag((), "names of the baselines; none: all", nargs="*", parse=files.checked_name)
    laion_dir: str = flag("data/laion/laion400m", "folder of the shards")
    max_count: int = flag(500, "pairs in a forget set, at most")
    unlearn_method: tuple[str, ...] = flag(("ft", "ga", "gaft", "salun", "ssd"), "baselines", nargs="*")
    lr: tuple[float, ...] = flag((1e-7, 3.2e-7, 1e-6, 3.2e-6, 1e-5), "their learning rates")
    selection: tuple[float, ...] = flag((10.0,), "selection weights of SSD")
    epochs: int = flag(10, "epochs of the baselines")
    forget_epochs: int = flag(10, "epochs of GA")
    train_batch_size: int = flag(32, "pairs in a batch of the baselines")
    settings_from: str = flag("", "as for the comparison: one setting for each method instead of the grid")
    front: int = flag(4, "layers on the Pareto front of an encoder, assumed")
    tflops: float = flag(10.0, "assumed rate of a GPU, in 10^12 operations per second")
    stored: bool = flag(False, "use a sample that was measured before, here or elsewhere")
    sample: str = flag("", "with --stored: this file")
    force: bool = flag(False, "measure again")
    data: bool = flag(False, "first print the state of the data")
    readme: str = flag("", "Markdown file whose estimate block is filled")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


# ------------------------------------------------------------------------------------------------------------- sample


def timed(work, device, seconds=1.0, warm=True):
    """Mean seconds of a call of `work`, over calls during `seconds`, after one warm-up call if `warm`.

    On a CPU these are seconds of one core, which other work on the machine does not lengthen.
    """
    import torch

    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if warm:
        work()
    calls, started = 0, clock()
    while not calls or clock() - started < seconds:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        calls += 1
    return (clock() - started) / calls


def kept_for_backward(clip, pairs, loss):
    """Bytes that the loss of these pairs keeps for its backward pass, without the parameters."""
    import torch

    own, seen = {p.untyped_storage().data_ptr() for p in clip.parameters.values()}, {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return x

    tokens = clip.tokenize(pairs.captions)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        for p in clip.parameters.values():
            p.requires_grad_(True)
        value = loss(clip.encode_image(pairs.images), clip.encode_text(tokens), clip.scale())
    del value
    for p in clip.parameters.values():
        p.requires_grad_(False)
    return sum(seen.values())


@contextlib.contextmanager
def alone():
    """One thread and no progress bars."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.set_num_threads(threads)


def measure(settings, device):
    """Time a few batches of the model with random weights; returns the sample."""
    import torch
    from PIL import Image

    from slug import models
    from slug.core import losses

    which = settings.model
    given = which.model.startswith(models.LOCAL) or which.clip_model_id
    which = which if given else replace(which, pretrained="random")
    clip = models.from_settings(which, settings.run.precision, device)
    system.reset_peak_memory(device)
    size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
    g = torch.Generator().manual_seed(settings.run.seed)
    most = (
        settings.model.batch_size if device.type == "cuda" else 4
    )  # on a CPU, where a batch takes seconds, a small one is enough
    images = torch.randint(0, 256, (most, 3, size, size), dtype=torch.uint8, generator=g)
    captions = [f"a photo of somebody number {i} on a stage" for i in range(most)]
    pairs = Pairs(images, captions, captions, 0)

    def gradient(n):
        some = Pairs(images[:n], captions[:n], captions[:n], 0)
        return lambda: gradients.compute(clip, some, losses.contrastive, batch_size=n)

    # Two batch sizes separate the cost of a pair from that of a batch (adding up all gradients in float64). A contrastive
    # batch has two pairs or more.
    few, many = timed(gradient(2), device), timed(gradient(most), device, warm=device.type == "cuda")
    pair_s = max(many - few, 1e-9) / (most - 2)
    for p in clip.parameters.values():
        p.grad = torch.zeros_like(p)
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for p in clip.parameters.values()], lr=0.0, fused=True)
    optimiser_s = timed(optimizer.step, device, 0.5)
    del optimizer
    for p in clip.parameters.values():
        p.grad = None
        p.requires_grad_(False)
    sides = {
        "vision": towers.Tower(clip, "vision", images, batch_size=settings.model.eval_batch_size),
        "language": towers.Tower(clip, "language", clip.tokenize([f"Given Family {i}." for i in range(4 * most)])),
    }
    sample = {}
    for encoder, tower in sides.items():
        sample[f"{encoder}_s"] = timed(tower.features, device) / tower.count
        tower.ran = [[len(members)] * len(tower.stages) for members, _ in tower.groups]
        sample[f"{encoder}_flop"] = tower.floating_operations() / tower.count
    jpegs = []
    for _ in range(32):
        small = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=g).numpy()
        out = io.BytesIO()
        Image.fromarray(small).resize((256, 256)).save(out, "JPEG")
        jpegs.append(out.getvalue())
    matcher = Matcher([plain_name(n) for n in settings.sets.celeb_name])
    captions = [f"a caption of some words, as they are on the web, number {i}" for i in range(2000)]
    cpu = torch.device("cpu")
    return sample | {
        "model": clip.label,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "precision": settings.run.precision,
        "parameters": sum(p.numel() for p in clip.parameters.values()),
        "blocks": len(sides["vision"].stages),
        "image_size": size,
        "pair_s": pair_s,
        "gradient_batch_s": max(few - 2 * pair_s, 0.0),
        "optimiser_s": optimiser_s,
        "pair_bytes": kept_for_backward(clip, pairs, losses.contrastive) / most,
        "peak_mb": system.peak_memory_mb(device),
        "decode_s": timed(lambda: decode(jpegs, clip.transform), cpu) / len(jpegs),
        "caption_s": timed(lambda: [matcher.find(c) for c in captions], cpu) / len(captions),
        "measured": time.strftime("%Y-%m-%d"),
        "versions": cli.versions(),
    }


def sample_of(settings):
    """(sample, its path, whether it was measured just now)."""
    label = files.safe_name(Path(settings.model.clip_model_id or settings.model.model.removeprefix("local-dir:")).name)
    if settings.stored:
        own = sorted((files.resolve(settings.run.result_dir) / "estimate").glob(f"{label}-*.json"))
        found = [files.resolve(settings.sample)] if settings.sample else [*own, *sorted(COMMITTED.glob(f"{label}-*.json"))]
        if not found:
            return None, None, False
        return files.read_json(found[0]), found[0], False
    device = system.settle(settings.run.device, settings.run.seed)
    path = files.resolve(settings.run.result_dir) / "estimate" / f"{label}-{device.type}.json"
    if path.is_file() and not settings.force:
        return files.read_json(path), path, False
    with alone():
        sample = measure(settings, device)
    files.write_json(path, sample)
    return sample, path, True


# ------------------------------------------------------------------------------------------------------------- counts


def pictures_of(tar):
    """Number of pictures in a tar of pairs."""
    try:
        with TarMembers(tar) as members:
            return sum(bool(evaluation_sets.PICTURE.fullmatch(name)) for name in members)
    except (OSError, tarfile.TarError) as err:
        raise SlugError(f"{tar} is not a whole tar file ({err}); delete it and make it again") from err


def count(settings):
    """Counts of the data that are there, and the paper's numbers of those that are not."""
    import pyarrow.parquet as pq

    pass

    assumed, names = [], list(dict.fromkeys(settings.sets.celeb_name))

    def known(what, there, paper):
        if there is None:
            assumed.append(what)
        return paper if there is None else there

    tars = [files.resolve(settings.sets.tar_dir) / f"{files.name_stem(n)}.tar" for n in names]
    forget = [pictures_of(t) if t.is_file() else None for t in tars]
    train, root = files.resolve(settings.sets.train_data), files.resolve(settings.sets.val_data)
    shown = people = None
    if (root / "frequent_celebs.txt").is_file() and (root / "list_identity_celeba.txt").is_file():
        identity = evaluation_sets.celeba_names(root)
        lines = files.read_text(root / "frequent_celebs.txt").splitlines()
        frequent = {clean_name(line) for line in lines}
        shown, people = sum(name in frequent for name in identity.values()), len(set(identity.values()))
    val, objects, classes = files.resolve(settings.sets.imagenet_val), None, None
    if val.is_dir():
        rows = evaluation_sets.imagenet_classes(val)
        classes = len(set(rows.values()))
        objects = sum(len(list((val / f).iterdir())) for f in rows if (val / f).is_dir())
    shards = sorted(files.resolve(settings.laion_dir).glob("*.parquet"))
    compared = [n for n in names if not settings.compare_names or n in settings.compare_names]
    return Counts(
        names=len(names),
        compared=len(compared),
        captions=sum(pq.read_metadata(s).num_rows for s in shards),
        forget=sum(known(f"{len(names)} forget sets of {settings.max_count}", n, settings.max_count) for n in forget),
        retain=known("retain pairs", pictures_of(train) if train.is_file() else None, 7900),
        identities=known("pictures of 100 identities", shown, 100 * 30),
        objects=round(settings.sets.imagenet_share * known("ImageNet pictures", objects, 50_000)),
        identity_texts=known("identity names", people, 10_177),
        object_texts=known("ImageNet classes", classes, 1000) * len(zeroshot.object_templates()),
        assumed=tuple(dict.fromkeys(assumed)),
    )


# --------------------------------------------------------------------------------------------------------------- plan


def plan(c, s, settings):
    """[Stage] from Counts, a sample and the settings; times are in seconds of the sample's device."""
    texts = c.identity_texts + c.object_texts
    pictures = c.identities + c.objects
    judged = sum(min(HALF * n, settings.sets.select_pictures) for n in (c.identities, c.objects))
    # Forward, and twice as much backward. That a caption is longer than a name matters little beside the picture.
    pair_flop = 3 * (s["vision_flop"] + s["language_flop"])
    weights = 4 * s["parameters"]
    decode_s = s["decode_s"] / max(settings.run.workers, 1)

    def gradients(pairs):
        """Seconds of a gradient pass."""
        return pairs * (s["pair_s"] + s["gradient_batch_s"] / settings.model.batch_size + decode_s)

    def look(n_pictures, n_texts):
        """(seconds, operations) of features of pictures and texts."""
        seconds = n_pictures * s["vision_s"] + n_texts * s["language_s"]
        return seconds, n_pictures * s["vision_flop"] + n_texts * s["language_flop"]

    passes = c.forget + c.retain
    gradient_memory = 4 * weights + settings.model.batch_size * s["pair_bytes"]  # weights, gradients, sums in float64
    # Activations of one block and one batch at a time.
    look_memory = weights + settings.model.eval_batch_size * s["pair_bytes"] / s["blocks"]
    cache = pictures * 3 * s["image_size"] ** 2  # decoded pictures, uint8

    start = look(pictures, texts)
    steps = 10 * settings.front
    vision, language = look(HALF * judged, 0), look(0, HALF * texts)
    report = look(pictures, texts)
    slug_s, slug_flop = (
        a + c.names * (steps * (v + t) + r) for a, v, t, r in zip(start, vision, language, report, strict=True)
    )

    grid = 1 if settings.settings_from else len(settings.lr)
    each, share = look(judged, texts), c.compared / max(c.names, 1)
    seconds, flop = start
    for method in settings.unlearn_method:
        base = method.removesuffix("_o")
        if base == "raw":
            continue
        if base == "ssd":
            trainings, epochs, pairs = c.compared * (1 if settings.settings_from else len(settings.selection)), 10, 0
            seconds += gradients(share * c.forget + c.retain)
            flop += (share * c.forget + c.retain) * pair_flop
        else:
            epochs = settings.forget_epochs if base == "ga" else settings.epochs
            trainings = grid if base == "ft" else grid * c.compared
            pairs = {"ft": c.retain, "ga": c.forget / c.names}.get(base, c.retain + c.forget / c.names)
        seconds += trainings * epochs * (pairs * (s["pair_s"] + s["optimiser_s"] / settings.train_batch_size) + each[0])
        flop += trainings * epochs * (pairs * pair_flop + each[1])
    # Weights, a copy of the original ones, gradients and AdamW's two moments.
    train_memory = 5 * weights + settings.train_batch_size * s["pair_bytes"]
    jobs = grid * c.compared * weights  # best weights of every setting, until the best setting is known
    have = c.compared and settings.unlearn_method
    return [
        Stage(
            "curation",
            f"{c.captions} captions" if c.captions else "no shards here",
            c.captions * s["caption_s"] if c.captions else None,
            0,
            None,
            None,
        ),
        Stage(
            "gradients",
            f"{c.forget} forget, {c.retain} retain pairs",
            gradients(passes),
            passes * pair_flop,
            gradient_memory,
            (c.names + 1) * weights,
        ),
        Stage(
            "slug, at most",
            f"{pictures} pictures, {texts} texts, {steps} steps for each encoder and name",
            slug_s + pictures * decode_s,
            slug_flop,
            look_memory,
            cache,
        ),
        Stage(
            "baselines",
            f"{c.compared} names, {len(settings.unlearn_method)} methods, {grid} settings",
            seconds if have else 0.0,
            flop if have else 0,
            train_memory if have else None,
            (c.compared + 1) * weights * ("ssd" in settings.unlearn_method) + jobs if have else 0,
        ),
    ]


def table(stages, s, settings):
    """The plan as Markdown lines."""
    where = "one CPU core" if s["device"] == "CPU" else s["device"]

    def cell(value, unit, digits):
        return "-" if value is None else f"{value / unit:.{digits}f}"

    lines = [
        f"| stage | on | h on {where} | TFLOP | h at {settings.tflops:g} TFLOP/s | memory GB | disk GB |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = Stage(
        "all",
        "",
        sum(x.seconds or 0 for x in stages),
        sum(x.flop for x in stages),
        max(x.memory or 0 for x in stages),
        sum(x.disk or 0 for x in stages),
    )
    for x in [*stages, whole]:
        assumed = cell(x.flop / settings.tflops, 3600e12, 2)
        columns = [x.stage, x.on, cell(x.seconds, 3600, 2), cell(x.flop, 1e12, 0), assumed]
        lines.append(f"| {' | '.join([*columns, cell(x.memory, 1e9, 1), cell(x.disk, 1e9, 2)])} |")
    return lines


def notes(c, s, settings):
    """What a reader of the plan must know, line by line."""
    gpu = "no GPU was measured: the column of hours at an assumed rate and the memory are arithmetic"
    where = f"one CPU core; {gpu}" if s["device"] == "CPU" else s["device"]
    lines = [f"Estimates, not runs. Sample: a few batches of {s['model']}, {s['measured']}, on {where}."]
    lines += [f"Assumed, because these data are not here: {', '.join(c.assumed)}."] if c.assumed else []
    lines.append("Memory: tensors only; the program itself and activations that the search keeps (--cache-gb) come on top.")
    lines.append("Disk: what the stages write; downloads come on top.")
    if settings.unlearn_method and c.compared:
        lines.append("Baselines: the grid as given; it grows while the best setting is at its end.")
    if not c.captions:
        lines.append(f"Curation: {s['caption_s'] * 1e6:.0f} s for a million captions; there are no shards here to count.")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    if settings.data:
        places = {k: getattr(settings.sets, k) for k in ("tar_dir", "train_data", "val_data", "imagenet_val", "mia_data")}
        keys = ("laion", "retain", "celeba", "imagenet", *["membership"] * settings.run.rules.own_captions)
        print(checks.table(checks.states(files.ROOT / "data", keys, laion_dir=settings.laion_dir, **places)))
    sample, path, fresh = sample_of(settings)
    if sample is None:
        model = settings.model.model
        print(f"# no estimate: {model} was not measured; run python scripts/tools/estimate.py --model {model}")
        return
    shown = path.relative_to(files.ROOT) if path.is_relative_to(files.ROOT) else path
    print(f"# {'measured now' if fresh else 'measured before'}: {shown}")
    counts = count(settings)
    lines = table(plan(counts, sample, settings), sample, settings)
    text = "\n".join([*lines, "", *(f"* {note}" for note in notes(counts, sample, settings))])
    print(text)
    if settings.readme:
        from slug.reports import markdown

        markdown.fill_blocks(settings.readme, {"estimate": text})


if __name__ == "__main__":
    cli.exit_with(main)
