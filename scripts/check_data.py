#!/usr/bin/env python
"""Report on every data set: found, complete, usable, and what to do (layouts: data/README.md).

Example: python scripts/check_data.py                                  looks in data/
         python scripts/check_data.py --data-dir data/demo             the embedded world
         python scripts/check_data.py --only celeba imagenet --strict  only these two; fails unless they are usable
Reads lists and counts and opens a few pictures; downloads and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import flag
from slug.errors import SlugError

KEYS = ("laion", "retain", "forget", "celeba", "imagenet", "canvas", "classifiers", "membership")
PLACES = ("laion_dir", "tar_dir", "train_data", "val_data", "imagenet_val", "canvas", "classifiers", "mia_data")


@dataclass(frozen=True)
class Settings:
    data_dir: str = flag("data", "folder with laion/, celeba/, ImageNet/ and UnlearnCanvas/")
    name: tuple[str, ...] = flag((), "forget names; without any, all tars", nargs="*", parse=files.checked_name)
    laion_dir: str = flag("", "shards, where not in {data-dir}/laion/laion400m")
    tar_dir: str = flag("", "forget sets, where not in {data-dir}/tar_files")
    train_data: str = flag("", "tar of the retain set, where not {laion-dir}/00000.tar")
    val_data: str = flag("", "CelebA folder, where not {data-dir}/celeba")
    imagenet_val: str = flag("", "ImageNet folder, where not {data-dir}/ImageNet/val")
    canvas: str = flag("", "UnlearnCanvas folder, where not {data-dir}/UnlearnCanvas")
    classifiers: str = flag("", "folder of its classifiers, where not {canvas}/classifiers")
    mia_data: str = flag("", "pairs of another corpus for membership as published, where not {data-dir}/cc3m/00000.tar")
    only: tuple[str, ...] = flag(KEYS, "data sets to report on", choices=KEYS)
    strict: bool = flag(False, "fail unless all of these data sets are usable")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug.data import checks

    places = {k: getattr(settings, k) for k in PLACES}
    states = checks.states(files.resolve(settings.data_dir), settings.only, settings.name, **places)
    print(checks.table(states))
    lacking = [f"{s.what} cannot be used ({s.detail})" for s in states if not s.usable]
    if settings.strict and lacking:
        raise SlugError(f"{'; '.join(lacking)}; see the list above")


if __name__ == "__main__":
    cli.exit_with(main)
