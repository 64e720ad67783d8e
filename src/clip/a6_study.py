"""A study of SLUG's choices: every name is forgotten in every variant, each a run from the original weights.

Example: python src/clip/a6_study.py --celeb-name Elon_Musk Jeff_Bezos --variant standard front_together --jobs 4
         python src/clip/a6_study.py --celeb-name Elon_Musk Jeff_Bezos --engine ray --jobs 16     (the machines of a cluster)
Needs a1_compute_grad.py of all names. Variants: one layer, all layers of the fronts, all layers; rankings; encoders; first
step and evaluations; forget and retain sets of other sizes; the deepest layer; several rounds (slug.study.VARIANTS).
Writes under --result-dir: parts/, a file a run, and runs.parquet, a row a run of these names that was ever made with the
same settings. Finished runs are kept; a run that fails is a row with its error, and is tried again the next time. A name's
variants are run one after the other and share the steps that they score. a4_report.py --study makes the report.
"""

import functools
import itertools
import json
from concurrent.futures import BrokenExecutor

import torch
from tqdm import tqdm

from slug import cli, pool
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.experiments import study


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.set_defaults(result_dir="results/study")
    parser.add_argument("--laion-dir", default="data/laion/laion400m", help="shards that say which drawing a picture is of")
    parser.add_argument("--variant", nargs="+", choices=list(study.VARIANTS), help="only these; default all")
    parser.add_argument("--quick", action="store_true", help="the quick variants, on 2 identities and an object")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with names and threads of its own")
    engines = (pool.LOCAL, "ray")
    parser.add_argument("--engine", choices=engines, default=engines[0], help="where they are: here, or on a Ray cluster")
    parser.add_argument("--force", action="store_true", help="do again what is finished")
    args = parser.parse_args(argv)
    cli.check_jobs(args)
    return args


def quick_names(world):
    """The first names of each kind, as many as a quick study takes."""
    identities = {n.casefold() for n in world.pictures[0].names}
    left, out = dict(study.QUICK_NAMES), []
    for name in world.args.celeb_name:
        kind = "identity" if plain_name(name).casefold() in identities else "object"
        if left[kind]:
            left[kind] -= 1
            out.append(name)
    return out


def main(argv=None):
    args = parse_args(argv)
    folder = cli.check_result_dir(args)
    threads = max(1, torch.get_num_threads() // args.jobs)
    settings = json.dumps(vars(args), sort_keys=True)
    world = study.world_of(settings)
    names = quick_names(world) if args.quick else args.celeb_name
    variants = args.variant or [n for n, v in study.VARIANTS.items() if v.quick or not args.quick]
    for variant in (study.VARIANTS[v] for v in variants):
        if variant.retain_share < 1:
            world.retain_part(variant, make=True)
    everything = study.plan(world, list(dict.fromkeys(args.celeb_name)), study.VARIANTS)
    planned = [p for p in everything if p.name in names and p.variant in variants]
    todo = [p for p in planned if args.force or not study.finished(folder, p)]
    if len(todo) < len(planned):
        print(f"{len(planned) - len(todo)} runs are finished and kept")
    by_name = [list(part) for _, part in itertools.groupby(todo, lambda p: p.name)]
    do = functools.partial(study.attempt_all, settings=settings, threads=threads)
    rows, table = [], folder / "runs.parquet"
    try:
        done = pool.spread(do, by_name, workers=args.jobs, distributor=args.engine)
        with tqdm(total=len(todo), desc="study", unit="run") as bar:
            for row in itertools.chain.from_iterable(done):
                tqdm.write(study.one_line(row))
                rows.append(row)
                bar.update()
    except BrokenExecutor as err:
        raise SlugError("a process of the study was killed, for its memory perhaps; fewer --jobs take less") from err
    finally:  # also when it is interrupted: what was finished is in the table, and what earlier studies of these data did
        total = study.merge(folder, everything, table)
    failed = [r for r in rows if r.get("error")]
    print(f"{total} runs, {len(rows)} of them new, {len(failed)} failed -> {table}")


if __name__ == "__main__":
    cli.exit_with(main)
