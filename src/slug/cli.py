"""What every stage script shares: flags, seeding, device, and how a failure ends."""

import argparse
import os
import platform
import random
import sys

import numpy as np
import torch

import slug
from slug import files
from slug.errors import SlugError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def parser(description):
    """An ArgumentParser with the flags that every stage has."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    out.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes CUDA where there is one")
    out.add_argument("--seed", type=int, default=0, help="seed of everything drawn by chance")
    out.add_argument("--workers", type=int, default=2, help="processes that decode images; 0 decodes in this one")
    out.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="autocast of evaluations, where it changes no answer of the unedited model; gradients are always fp32",
    )
    out.add_argument("--result-dir", default="results", help="where results go (relative to the repository root)")
    return out


def add_model_flags(parser):
    """The flags that say which CLIP is meant."""
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture or local-dir:FOLDER")
    parser.add_argument("--pretrained", default="", help="open_clip tag or weight file; 'random' for untrained weights")
    parser.add_argument("--clip-model-id", default="", help="Hugging Face CLIP id or folder, instead of --model")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a batch of the gradient pass")
    parser.add_argument("--eval-batch-size", type=int, default=256, help="pictures or texts a batch of evaluations")


def add_data_flags(parser):
    """The flags that say what is forgotten, what is retained, and what a candidate is judged by."""
    parser.add_argument("--celeb-name", nargs="+", required=True, help="forget names, of identities or objects")
    parser.add_argument("--forget-data", default="", help="tar of the forget set (one name only); else --tar-dir/{name}.tar")
    parser.add_argument("--tar-dir", default="data/tar_files", help="folder of the curated tars")
    parser.add_argument("--train-data", default="data/laion/laion400m/00000.tar", help="tar of the retain set")
    parser.add_argument("--val-data", default="data/celeba", help="CelebA folder")
    parser.add_argument("--imagenet-val", default="data/ImageNet/val", help="ImageNet validation folder")
    parser.add_argument("--imagenet-share", type=float, default=1.0, help="part of its pictures, drawn by --seed")
    parser.add_argument(
        "--select-pictures", type=int, default=4000, help="retain pictures a task that candidates are chosen by"
    )
    parser.add_argument("--trace", type=int, default=0, help="retain pictures a task scored at every candidate, for plots")
    parser.add_argument(
        "--cache-gb", type=float, default=-1.0, help="memory for kept activations; below 0: a quarter of what is free"
    )
    parser.add_argument("--fa-k", type=int, default=0, help="k of the FA@k that brackets the step; 0: by number of names")


def settle(args):
    """Seed everything and settle the device; returns the torch device. SlugError if the device is not there."""
    random.seed(args.seed)
    np.random.seed(args.seed % 2**32)
    torch.manual_seed(args.seed)
    name = args.device
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as err:
        first = str(err).splitlines()[0]
        raise SlugError(f"device {name!r} cannot be used ({first}); try --device cpu") from err


def settings(args, *, without=()):
    """The flags of a run for its record: paths inside the repository relative to it, so that records travel.

    Args:
        without: flags that do not change a result.
    """
    inside = f"{files.ROOT}{os.sep}"
    values = {k: v for k, v in vars(args).items() if k not in without}
    return {k: v.replace(inside, "") if isinstance(v, str) else v for k, v in values.items()}


def versions():
    """The versions a record carries."""
    return {"slug": slug.__version__, "torch": torch.__version__, "python": platform.python_version()}


def check_result_dir(args):
    """The result folder, made and shown to be writable before any long work. SlugError if it is not."""
    return files.check_writable(args.result_dir)


def check_jobs(args):
    """SlugError unless --jobs, the processes of a stage, are one or more."""
    if args.jobs < 1:
        raise SlugError(f"--jobs {args.jobs}: there must be one process or more")


def part_of(part, whole):
    """The I-th of N parts of a list, as --part says: every N-th. SlugError unless 1 <= I <= N."""
    number, count = part
    if not 1 <= number <= count:
        raise SlugError(f"--part {number} {count}: the first is a number from 1 to the second")
    return whole[number - 1 :: count]


def exit_with(main):
    """Run a stage's main(); an expected failure prints one line and ends with exit code 2."""
    try:
        main()
    except SlugError as err:
        print(f"error: {err}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
