#!/usr/bin/env python
"""Says of every data set: found, complete, usable, and what to do (layouts: data/README.md).

Example: python scripts/check_data.py                                  looks in data/
         python scripts/check_data.py --data-dir data/demo             the embedded world
         python scripts/check_data.py --only celeba imagenet --strict  these alone; fails unless they can be used
Reads lists and counts and opens a few pictures; downloads and changes nothing.
"""

import argparse

from slug import cli, files
from slug.data import checks
from slug.errors import SlugError

KEYS = ("laion", "retain", "forget", "celeba", "imagenet", "canvas", "classifiers")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="the folder with laion/, celeba/, ImageNet/, UnlearnCanvas/")
    parser.add_argument("--name", nargs="*", default=[], help="forget names; default: the tars that are there")
    parser.add_argument("--laion-dir", default="", help="shards, where not in {data-dir}/laion/laion400m")
    parser.add_argument("--tar-dir", default="", help="curated tars, where not in {data-dir}/tar_files")
    parser.add_argument("--train-data", default="", help="tar of the retain set, where not {laion-dir}/00000.tar")
    parser.add_argument("--val-data", default="", help="CelebA folder, where not {data-dir}/celeba")
    parser.add_argument("--imagenet-val", default="", help="where not {data-dir}/ImageNet/val")
    parser.add_argument("--canvas", default="", help="UnlearnCanvas folder, where not {data-dir}/UnlearnCanvas")
    parser.add_argument("--classifiers", default="", help="its classifiers, where not {canvas}/classifiers")
    parser.add_argument("--only", nargs="+", choices=KEYS, default=KEYS, help="look at these alone")
    parser.add_argument("--strict", action="store_true", help="fail unless all that is looked at can be used")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    places = ("laion_dir", "tar_dir", "train_data", "val_data", "imagenet_val", "canvas", "classifiers")
    places = {k: getattr(args, k) for k in places}
    states = checks.states(files.resolve(args.data_dir), args.only, args.name, **places)
    print(checks.table(states))
    lacking = [s for s in states if args.strict and not s.usable]
    if lacking:
        raise SlugError("; ".join(f"{s.what} cannot be used ({s.detail})" for s in lacking) + "; see the list above")


if __name__ == "__main__":
    cli.exit_with(main)
