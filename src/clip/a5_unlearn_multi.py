"""Forget several names at once: the edits that each found by itself, applied together (paper, section 3).

Example: python src/clip/a5_unlearn_multi.py --celeb-name Elon_Musk Jeff_Bezos Taylor_Swift --model ViT-B-32 ...
         python src/clip/a5_unlearn_multi.py --celeb-name ... --joint    (the steps as short as all stay forgotten)
Needs a2_unlearn_slug.py for every name: each gradient was taken on the original model, each name has its own layer and step.
For the first 2, 3, ... of the names it reports, on the test split, what is forgotten and what stays, and the cosine
matrices before and after; of all of them also what it is without each one's edit, which gives that name back. Identities,
objects and mixtures alike. Writes under results/clip/multi/, or --out: table.csv, report.md, the matrices, and with --joint
the deltas of the steps that it settled on, a folder a margin (--sigmas) and count of names.
src/clip/a2_unlearn_slug.py apply puts several deltas into one model folder and takes each out again.
"""

import os

import pandas as pd
from tqdm import tqdm

from slug import cli, files, models
from slug.artifacts import cards, deltas, records
from slug.core.edit import summed
from slug.data import evaluation_sets
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import clip_tasks
from slug.experiments import several
from slug.reports import markdown, plots
from slug.reports import several as several_report


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.add_argument("--joint", action="store_true", help="beside the plain sum: scale the steps, which interfere")
    parser.add_argument(
        "--sigmas",
        nargs="+",
        type=float,
        default=several.SIGMAS,
        help="a joint search each: deviations by which the margins of every name must lie below 0",
    )
    parser.add_argument("--out", default="", help="folder to write; else results/clip/multi")
    parser.add_argument("--part", default="", help="subfolder of it, for other names beside those of an earlier run")
    parser.add_argument("--readme", default="", help="Markdown file whose multi block is filled, from all parts in --out")
    return parser.parse_args(argv)


def read_edits(args, clip, folder, names):
    """({name: edit}, {name: header of its delta}). SlugError where one is missing or of other splits."""
    edits, headers = {}, {}
    for name in names:
        tensors, headers[name] = deltas.read(folder / records.file_name(clip.label, name, ".delta.safetensors"))
        path = folder / records.file_name(clip.label, name, ".json")
        records.check_splits(records.check_whole(path, files.read_json(path)), args.seed, args.imagenet_share)
        edits[name] = deltas.native(clip, tensors, headers[name])
    return edits, headers


def write_deltas(clip, group, factors, headers, table, folder):
    """Write the delta of each name's edit times its factor.

    Args:
        table: rows of table.csv, those of the names first and in their order.
    """
    for name, factor, edit, row in zip(group.names, factors, group.edits, table[: len(factors)], strict=True):
        metrics = {k: row[k] for k in ("forget_acc1", "forget_upper", "n_forget", "split", "factor")}
        header, path = headers[name], folder / records.file_name(clip.label, name, ".delta.safetensors")
        metrics |= {"method": cards.method_of(header), "together_with": [n for n in group.names if n != name]}
        about = {"name": name, "layer": header["layer"], "step": factor * float(header["step"]), "metrics": metrics}
        deltas.save(path, clip, summed([edit], [factor]), **about)


def matrices(folder, label, method, count, tasks):
    """{task: path, without ending, of its cosine matrix}; only where there are several the name tells them apart."""
    stem = f"{files.safe_name(label)}-cosine-{method}-{count}"
    return {task: folder / (f"{stem}-{task}" if len(tasks) > 1 else stem) for task in tasks}


def read_table(folder, start):
    """(rows of a folder's table.csv as its readers have them, rounded; paths, from `start`, of the matrices of the plain sum
    of all names)."""
    frame = pd.read_csv(folder / "table.csv")
    stems = matrices(folder, frame["model"].iloc[0], "sum", frame["count"].max(), frame["task"].dropna().unique())
    return frame, [f"{os.path.relpath(stem, start)}.png" for stem in stems.values()]


def fill_readme(readme, root):
    """Fill the multi block of a Markdown file from all tables in `root` and one level below."""
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    found = [read_table(f, files.resolve(readme).parent) for f in folders if (f / "table.csv").is_file()]
    markdown.fill_blocks(readme, {"multi": several_report.parts_report(found)})


def main(argv=None):
    args = parse_args(argv)
    names = list(dict.fromkeys(map(plain_name, args.celeb_name)))
    if len(names) < 2:
        raise SlugError("give two names or more; for one there is a2_unlearn_slug.py")
    device = cli.settle(args)
    folder = cli.check_result_dir(args) / "clip"
    root = files.resolve(args.out or folder / "multi")
    out = files.check_writable(root / args.part)
    clip = models.from_args(args, device)
    edits, headers = read_edits(args, clip, folder, names)
    identities, objects, split = evaluation_sets.load_evaluation(args, args, clip.transform)
    options = {"batch_size": args.eval_batch_size, "cache_gb": args.cache_gb}
    evaluation = clip_tasks.Evaluation(clip, identities, objects, **options)
    table = []
    for count in tqdm(range(2, len(names) + 1), desc="counts", unit="count"):
        group = several.Group(evaluation, split, names[:count], edits, args.seed)
        before, original = (group.own(None), group.rest(None)), group.similarity(None)
        ways = [("sum", 0.0, (1.0,) * count)]
        ways += [(f"joint-{s:g}", s, group.joint(s)) for s in dict.fromkeys(args.sigmas if args.joint else ())]
        for method, sigmas, factors in ways:
            with group.applied(factors) as edited:
                after, similar = (group.own(edited), group.rest(edited)), group.similarity(edited)
            rows = several.rows(group, method, factors, before, after, sigmas)
            table += rows
            for task, stem in matrices(out, clip.label, method, count, similar).items():
                shown, cosines, n = similar[task]
                mine = sum(t.task == task for t in group.targets)
                of = f"{count} names" if mine == count else f"{mine} {task} of {count} names"
                plots.similarity(original[task][1], cosines, shown, f"{of}, {method}, test split, {n} pictures", stem)
                if args.out:
                    png = stem.with_name(f"{stem.name}.png")
                    files.place(png, png)
            if method != "sum":
                with files.replacing_folder(out / f"{method}-{count}") as temporary:
                    write_deltas(clip, group, factors, headers, rows, temporary)
    for method, _, factors in ways:  # of all names
        table += several.reverted_rows(group, method, factors, before[0])
    frame = pd.DataFrame(table).assign(edits=" and ".join(sorted({cards.method_of(h) for h in headers.values()})))
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    text = several_report.report(*read_table(out, out))
    files.write_text(out / "report.md", text + "\n")
    print(text)
    if args.readme:
        fill_readme(args.readme, root)


if __name__ == "__main__":
    cli.exit_with(main)
