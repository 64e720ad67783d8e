"""Forget several names at once: the edits that each found by itself, applied together (paper, section 3).

Example: python src/clip/a5_unlearn_multi.py --celeb-name Elon_Musk Jeff_Bezos Taylor_Swift --model ViT-B-32 ...
         python src/clip/a5_unlearn_multi.py --celeb-name ... --joint    (steps as short as all names stay forgotten)
Needs a2_unlearn_slug.py for every name: each gradient was taken on the original model, each name has its own layer and step.
For the first 2, 3, ... of the names it reports, on the test split, what is forgotten, what is retained, and the cosine
matrices before and after; for all of them also the sum without each one's edit, which gives that name back. Writes under
results/clip/multi/, or --out: table.csv, report.md, the matrices, and with --joint the deltas of the chosen steps, a folder
for each value of --sigmas and number of names. a2_unlearn_slug.py apply puts several deltas into one model folder.
"""

import os

from slug import cli, files
from slug.errors import SlugError
from slug.settings import Several


def parse_args(argv=None) -> Several:
    return cli.parse(__doc__, Several, argv)


def matrices(folder, label, method, count, tasks):
    """{task: path without ending of its cosine matrix}; the name says the task only where there are several."""
    stem = f"{files.safe_name(label)}-cosine-{method}-{count}"
    return {task: folder / (f"{stem}-{task}" if len(tasks) > 1 else stem) for task in tasks}


def read_table(folder, start):
    """(table.csv of a folder as its readers see it, rounded; paths from `start` of the matrices of the sum of all names)."""
    from slug.reports import reading, several

    path, remedy = folder / "table.csv", "run this stage again, or take the file away"
    with reading.as_written(path, remedy):
        frame = reading.csv_table(path, reading.SEVERAL, remedy)
        stems = matrices(folder, frame["model"].iloc[0], "sum", frame["count"].max(), frame["task"].dropna().unique())
        several.parts_report([(frame, [])])  # whether there is a report of it
    return frame, [f"{os.path.relpath(stem, start)}.png" for stem in stems.values()]


def publish(settings: Several, root, out, frame):
    """Write table.csv and report.md, and fill the page's block from all tables in `root` and one level below."""
    from slug.reports import markdown
    from slug.reports import several as report

    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    files.write_text(out / "report.md", (text := report.report(*read_table(out, out))) + "\n")
    print(text)
    if settings.readme:
        folders, start = [root, *sorted(p for p in root.iterdir() if p.is_dir())], files.resolve(settings.readme).parent
        found = [read_table(f, start) for f in folders if (f / "table.csv").is_file()]
        markdown.fill_blocks(settings.readme, {"multi": report.parts_report(found)})


def main(argv=None):
    settings = parse_args(argv)
    import pandas as pd  # here, as below: --help needs none of this

    from slug import progress
    from slug.artifacts import cards
    from slug.data.names import plain_name
    from slug.experiments import several
    from slug.experiments.setup import World
    from slug.reports import plots

    names = list(dict.fromkeys(map(plain_name, settings.data.celeb_name)))
    if len(names) < 2:
        raise SlugError("give two names or more; for one name there is a2_unlearn_slug.py")
    world, seed = World(settings.run, settings.model, settings.data), settings.run.seed
    folder = files.resolve(settings.run.result_dir) / "clip"
    root = files.resolve(settings.out or folder / "multi")
    out, label, table = files.check_writable(root / settings.part), world.clip.label, []
    edits, headers = several.read_edits(world.clip, folder, names, seed, settings.data.imagenet_share)
    for count in progress.bar(range(2, len(names) + 1), desc="names at once", unit="count"):
        group = several.Group(world.evaluation, world.masks, names[:count], edits, seed, settings.max_forget)
        before, original = (group.own(), group.rest()), group.similarity()
        ways = list(several.ways(group, settings.sigmas if settings.joint else ()))
        for method, sigmas, factors in ways:
            with world.evaluation.carrying(group.edit(factors)):
                after, similar = (group.own(), group.rest()), group.similarity()
            rows = group.rows(method, factors, before, after, sigmas)
            table += rows
            for task, stem in matrices(out, label, method, count, similar).items():
                shown, cosines, n = similar[task]
                title = f"{count} names at once, and the nearest {task} ({n} pictures)"
                plots.similarity(original[task][1], cosines, shown, title, stem)
            if method != "sum":
                with files.replacing_folder(out / f"{method}-{count}") as temporary:
                    several.write_deltas(group, factors, headers, rows, temporary)
    for method, _, factors in ways:  # of all names
        table += group.reverted_rows(method, factors, before[0])
    methods = " and ".join(sorted({cards.method_of(h) for h in headers.values()}))
    publish(settings, root, out, pd.DataFrame(table).assign(edits=methods, protocol=settings.run.protocol))


if __name__ == "__main__":
    cli.exit_with(main)
