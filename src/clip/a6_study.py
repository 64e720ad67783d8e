"""A study of SLUG's choices: every name is forgotten in every variant, and each run starts from the original weights.

Example: python src/clip/a6_study.py --celeb-name Elon_Musk Jeff_Bezos --variant standard front_together --jobs 4
         python src/clip/a6_study.py --celeb-name Elon_Musk Jeff_Bezos --engine ray --jobs 16     (the machines of a cluster)
Needs a1_compute_grad.py for all names. Variants: one layer, all layers of the Pareto fronts, all layers; rankings; encoders;
first step and evaluations; forget and retain sets of other sizes; the deepest layer; several rounds.
Writes under --result-dir: parts/, one file for each run, and runs.parquet, one row for each run of these names that was ever
made with the same settings. Finished runs are kept; a run that fails is a row with its error, and is tried again the next
time. The variants of a name run one after the other and share the steps that they score. a4_report.py --study makes the
report.
"""

import functools
import itertools
from concurrent.futures import BrokenExecutor

from slug import cli, files
from slug.errors import SlugError
from slug.settings import Study


def parse_args(argv=None) -> Study:
    return cli.parse(__doc__, Study, argv)


def one_line(row):
    """A run in one line for the terminal."""
    if row.get("error"):
        return f"{row['name']}, {row['variant']}: failed: {row['error']}"
    return (
        f"{row['name']}, {row['variant']}: {row['layer']} step {row['step']:.4g}, test split: "
        f"FA@1 {row['original_forget_acc1']:.1%} -> {row['forget_acc1']:.1%} (at most {row['forget_upper']:.1%}), "
        f"identities {100 * row['identities_change']:+.2f}, objects {100 * row['objects_change']:+.2f} points, "
        f"{row['n_candidates']} candidates, {row['seconds']:.1f} s"
    )


def main(argv=None):
    settings = parse_args(argv)
    from slug import progress
    from slug.experiments import runner, study  # here: --help needs no torch
    from slug.experiments.study_variants import QUICK, VARIANTS

    files.check_writable(settings.run.result_dir)
    world, parts = study.world_of(settings), study.parts(settings)
    names = study.quick_names(world) if settings.quick else world.gradients.names
    variants = settings.variant or [v for v in VARIANTS if v in QUICK or not settings.quick]
    for variant in (VARIANTS[v] for v in variants):
        if variant.retain_share < 1:
            world.share(variant, make=True)
    everything = study.plan(world, world.gradients.names, list(VARIANTS))
    planned = [p for p in everything if p.name in names and p.variant in variants]
    todo = [p for p in planned if settings.force or not study.finished(parts, p)]
    if len(todo) < len(planned):
        print(f"{len(planned) - len(todo)} runs are finished and kept")
    by_name = [list(part) for _, part in itertools.groupby(todo, lambda p: p.name)]
    work, rows = functools.partial(study.attempt_all, settings=settings), []
    try:
        done = runner.deal(work, by_name, jobs=settings.jobs, engine=settings.engine)
        with progress.bar(total=len(todo), desc="study", unit="run") as bar:
            for row in itertools.chain.from_iterable(done):
                progress.write(one_line(row))
                rows.append(row)
                bar.update()
    except BrokenExecutor as err:
        raise SlugError("a process of the study was killed, perhaps for its memory; fewer --jobs take less") from err
    finally:  # also when it is interrupted: the table has what was finished, here and in earlier studies of these data
        total = study.merge(parts, everything)
    failed = [r for r in rows if r.get("error")]
    print(f"{total} runs, {len(rows)} of them new, {len(failed)} failed -> {parts.table}")


if __name__ == "__main__":
    cli.exit_with(main)
