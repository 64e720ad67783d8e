"""Does what was forgotten come back? Tests of every edit on record: relearning, coarser weights, a linear probe, other
spellings, drawing styles, sums of features; SLUG and the baselines alike.

Example: python src/clip/a7_lasting.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a7_lasting.py --celeb-name Lion Owl --records results/demo --unlearn-method slug ssd
         python src/clip/a7_lasting.py --celeb-name Lion Owl --model ... --report --readme README.md    (runs that are there)
Needs the records of a2_unlearn_slug.py and a3_unlearn_compare.py, and the tars. SLUG's edits are its deltas. The weights of
a baseline's chosen candidate are not kept, so its training is done again, with the setting, seed and data of its record
(salun and ssd need their gradients, a1_compute_grad.py); where an edit does not score what its record says, a note says so.
Writes results/lasting/: runs.parquet, a row a model, name, method, test and setting; REPORT.md with the verdicts; the
relearning curves. A (model, name, method, test) that was finished with the same settings is kept; while it runs, what is
finished lies in parts/ beside runs.parquet. With --out the report, the curves and the rows that they are of go to that
folder.
"""

import contextlib
import functools
import hashlib
import json
import os
import time

import pandas as pd
import torch
from pyarrow import ArrowException
from tqdm import tqdm

from slug import cli, files, methods, models, pool, schema
from slug.artifacts import deltas, gradient_files, records
from slug.core import gradients
from slug.core.edit import holding
from slug.data import evaluation_sets
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs
from slug.errors import SlugError, brief
from slug.evaluation import clip_tasks, durability
from slug.experiments import comparison
from slug.reports import durability_report, markdown, naming, plots

NOT_SETTINGS = (  # change no row
    *("force", "celeb_name", "device", "workers", "result_dir", "cache_gb", "records", "unlearn_method"),
    *("out", "readme", "report", "select_pictures", "trace", "fa_k", "jobs"),
)
KEY = ["model", "name", "method", "test"]  # of the rows that a test writes at once


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.add_argument("--records", default="", help="folder of the records and deltas; default {result-dir}/clip")
    parser.add_argument("--unlearn-method", nargs="+", default=[], help="methods to test; default: all on record")
    parser.add_argument("--aliases", nargs="+", default=[], help="CSVs with the columns name, alias: synonyms of the names")
    parser.add_argument("--retain-pictures", type=int, default=1000, help="pictures a task that tell what stays; 0: all")
    parser.add_argument("--relearn-pictures", type=int, nargs="+", default=[2, 8, 0], help="forget pictures; 0: all of them")
    parser.add_argument("--relearn-steps", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="when relearning is scored")
    parser.add_argument("--relearn-lr", type=float, default=1e-5, help="AdamW's learning rate in relearning, constant")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with names, a model and threads of its own")
    parser.add_argument("--force", action="store_true", help="do again what is valid")
    parser.add_argument("--report", action="store_true", help="run nothing: report and plot what is there")
    parser.add_argument("--out", default="", help="folder of the report and its rows; else results/lasting")
    parser.add_argument("--readme", default="", help="Markdown file whose lasting block is filled")
    args = parser.parse_args(argv)
    if min(*args.relearn_steps, args.relearn_lr) <= 0 or min(*args.relearn_pictures, args.retain_pictures) < 0:
        raise SlugError(
            "--relearn-steps and --relearn-lr must be above 0, --relearn-pictures and --retain-pictures 0 or more"
        )
    cli.check_jobs(args)
    return args


def on_record(args, label):
    """({(name, method): record} of the names and methods asked for, folder of the records, all names on record).

    Raises SlugError where a record is missing, or of other splits.
    """
    folder = files.resolve(args.records or f"{args.result_dir}/clip")
    every = records.read_all(folder, label)
    if not every:
        raise SlugError(f"no records of {label} in {folder}; make them with: bash scripts/run_clip_slug.sh")
    found = {}
    for name in dict.fromkeys(map(plain_name, args.celeb_name)):
        mine = {r["method"]: r for r in every if r["name"].casefold() == name.casefold()}
        wanted = args.unlearn_method or naming.in_order(mine)
        lacks = next((m for m in wanted if m not in mine), None)
        if lacks or not mine:
            raise SlugError(f"no record of {lacks or 'any method'} for {name} in {folder}; run its stage (a2 or a3) first")
        for method in wanted:
            records.check_splits(mine[method], args.seed, args.imagenet_share)
            found[name, method] = mine[method]
    return found, folder, sorted({r["name"] for r in every})


def read_aliases(paths):
    """{name, casefolded: [alias]} of CSVs with the columns name and alias."""
    found = {}
    for path in paths:
        path = files.existing(path, "CSV of aliases", "give --aliases, or leave it out")
        for row in files.read_csv(path, ("name", "alias"), "it needs the columns name and alias"):
            if row["alias"].strip():
                found.setdefault(plain_name(row["name"]).casefold(), []).append(row["alias"].strip())
    return found


def read_runs(path):
    """The rows of runs.parquet; none where there is no such file. SlugError if it is damaged."""
    if not path.is_file():
        return pd.DataFrame(columns=[*KEY, "setting", "made_with"])
    try:
        return pd.read_parquet(path)
    except (ArrowException, OSError, ValueError) as err:
        raise SlugError(f"{path} is no whole Parquet file ({brief(err)}); delete it and run this stage again") from err


def write_runs(path, frame):
    """Write rows as Parquet, whole or not at all."""
    with files.replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def collect(path):
    """All rows: those of runs.parquet and of what processes wrote beside it, which goes into runs.parquet now.

    A part is removed only after that, so that a kill in between loses nothing.
    """
    frame = read_runs(path)
    parts = sorted((path.parent / "parts").glob("*.parquet"))
    for part in parts:
        fresh = read_runs(part)
        old = pd.MultiIndex.from_frame(frame[KEY]).isin(pd.MultiIndex.from_frame(fresh[KEY]))
        frame = pd.concat([f for f in (frame[~old], fresh) if len(f)], ignore_index=True)
    if parts:
        write_runs(path, frame)
        for part in parts:
            part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run has parts there
            (path.parent / "parts").rmdir()
    return frame


class Edits:
    """The weights of every edit on record."""

    def __init__(self, args, clip, folder, left_out):
        """left_out: names whose pairs the retain set leaves out, those of all records."""
        self.args, self.clip, self.folder, self.left_out = args, clip, folder, left_out
        self.given = {plain_name(n): n for n in args.celeb_name}  # gradients lie under a name as it was given
        self._retain = None
        self.trained = {}  # FT's weights do not depend on the name: {(setting, candidate): weights}
        self.model_hash = gradient_files.model_hash(clip)
        self.train_data = files.existing(args.train_data, "retain set", "give --train-data")

    @property  # cached_property holds a lock before Python 3.12, and would keep this class from other processes
    def retain(self):
        """data.Pairs of the retain set, read when they are needed first."""
        if self._retain is None:
            matcher, transform = Matcher(self.left_out), self.clip.transform
            self._retain = load_pairs(self.train_data, transform, leave_out=matcher, workers=self.args.workers)
        return self._retain

    def fingerprint(self, record):
        """What tells one edit from another. SlugError if the record does not say it, or the delta is not there."""
        try:
            if record["method"].startswith("slug"):
                return files.file_hash(
                    files.existing(self.folder / record["delta"], "delta", "run a2_unlearn_slug.py again")
                )
            said = [record[k] for k in ("setting", "step", "settings", "inputs")]
        except KeyError as err:
            path = self.folder / records.record_file(record)
            raise SlugError(f"{path} is no whole record: it lacks {err}; delete it and run its stage again") from err
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def check(self, name, record, inputs):
        """SlugError if an edit cannot be made again: a baseline's record is of other data or another model than are here, or
        its gradients are missing; a delta is refused by another model itself.

        Args:
            name: as people write it.
        """
        if record["method"].startswith("slug"):
            deltas.native(self.clip, *deltas.read(self.folder / record["delta"]))
            return
        if record["inputs"] != inputs:
            raise SlugError(
                f"the record of {record['method']} for {record['name']} was made with another model or other data; "
                "run a3_unlearn_compare.py again"
            )
        self.passes(name, record)

    def passes(self, name, record):
        """What a baseline reads from gradient files, as fields of baselines.Material."""
        batch_size = record["settings"]["grad_batch_size"]
        return comparison.read_passes(self.args, self.clip, self.given[name], record["method"], self.model_hash, batch_size)[
            0
        ]

    def weights(self, name, record, pairs):
        """{native parameter name: tensor} of an edited model where it differs from the original.

        Args:
            pairs: data.Pairs of the forget set.
        """
        method = record["method"]
        if method.startswith("slug"):
            change = deltas.native(self.clip, *deltas.read(self.folder / record["delta"]))
            return {n: self.clip.parameters[n].detach() + c for n, c in change.items()}
        key = record["setting"], record["step"]
        if method == "ft" and key in self.trained:
            return self.trained[key]
        material = methods.Material(pairs, self.retain, methods.split(method)[1], **self.passes(name, record))
        found = comparison.redo(self.clip, record, material)
        if method == "ft":
            self.trained[key] = found
        return found


def joined(rows, original, common):
    """The rows of an edit with the unedited model's figures under the same setting beside them.

    Args:
        rows, original: what a test returned for each; a single row of `original` stands for all.
        common: columns of every row.
    """
    original = (
        {r["setting"]: r for r in original} if len(original) > 1 else dict.fromkeys([r["setting"] for r in rows], *original)
    )
    out = []
    for row in rows:
        first = original[row["setting"]]
        beside = {"original": first["value"], "original_low": first["low"], "original_high": first["high"]}
        beside |= {f"original_{t}": first[f"{t}_acc1"] for t in ("identities", "objects") if f"{t}_acc1" in first}
        out.append(common | row | beside)
    return out


def plan(args, edits, found, evaluations, frame):
    """{(name, method): (all that its rows depend on, as JSON; tests that are not finished)}, in the order of the work.

    Args:
        found: {(name, method): record}.
        evaluations: (identities, objects), data.PictureSet.
        frame: rows of earlier runs.
    Raises:
        SlugError: something that the work will need is missing; it is missed now, not after hours.
    """
    aliases, jobs, inputs = read_aliases(args.aliases), {}, {}
    settings = cli.settings(args, without=NOT_SETTINGS)
    for (name, method), record in found.items():
        if name not in inputs:
            tars = [forget_tar(args, name), edits.train_data]
            inputs[name] = records.inputs_hash(edits.model_hash, [], evaluations, tars)
        made = {
            "name": name,
            "method": method,
            "settings": settings,
            "versions": cli.versions(),
            "inputs": inputs[name],
            "left_out": edits.left_out,
        }
        made |= {"aliases": aliases.get(name.casefold(), []), "edit": edits.fingerprint(record)}
        mark = json.dumps(made, sort_keys=True)
        done = set() if args.force else set(frame[frame["made_with"] == mark]["test"])
        jobs[name, method] = mark, [t for t in schema.TESTS if t not in done]
        if jobs[name, method][1]:
            edits.check(name, record, inputs[name])
    return jobs


def forget_tar(args, name):
    """Path of a name's forget set. SlugError if it is not there."""
    return files.existing(
        gradient_files.forget_tar(args, name), "forget set", f"run src/clip/a0_create_tar.py --name {name}"
    )


def run(args, clip, found, folder, left_out, path, number=0):
    """Every test of every edit that is not finished; rows go to a file beside `path` as they come (`collect`).

    Args:
        number: of this process, the line of its progress bar.
    Returns:
        What the rows depend on, `made_with`, an edit.
    """
    identities, objects, split = evaluation_sets.load_evaluation(args, args, clip.transform)
    edits, fresh = Edits(args, clip, folder, left_out), []
    jobs = plan(args, edits, found, (identities, objects), read_runs(path))
    relearning = {"counts": list(dict.fromkeys(args.relearn_pictures)), "lr": args.relearn_lr}
    relearning["points"] = tuple(sorted(set(args.relearn_steps)))
    # A process whose parent was killed works on beside those of the next run: no two may write one file.
    part = path.parent / "parts" / f"{os.getpid()}.parquet"
    evaluation, subjects, unedited = None, {}, {}
    with tqdm(total=sum(len(todo) for _, todo in jobs.values()), unit="test", desc="tests", position=number) as bar:
        for (name, method), (mark, todo) in jobs.items():
            if not todo:
                continue
            record = found[name, method]
            bar.set_postfix_str(f"{name}, {method}")
            if evaluation is None:
                options = {"batch_size": args.eval_batch_size, "cache_gb": max(args.cache_gb, 0)}
                evaluation = clip_tasks.Evaluation(clip, identities, objects, **options)
            if name not in subjects:
                pairs = load_pairs(forget_tar(args, name), clip.transform, workers=args.workers)
                options = {"aliases": json.loads(mark)["aliases"], "seed": args.seed, "limit": args.retain_pictures or None}
                subject = durability.Subject(
                    clip, evaluation, split, evaluation.target(name), pairs, edits.retain, **options
                )
                subjects, unedited = {name: subject}, {}  # the names come one after another
            subject = subjects[name]
            common = {"name": name, "kind": record["kind"], "method": method, "model": clip.label, "seed": args.seed}
            common |= {"relearn_lr": args.relearn_lr, "made_with": mark}
            edited = record["layer"] if method.startswith("slug") else gradients.BOTH
            weights, tests = edits.weights(name, record, subject.pairs), subject.tests(relearning)
            for test in todo:
                beside = durability.EDIT if test == durability.RELEARNED else test
                if beside not in unedited:
                    unedited[beside] = tests[beside](None)
                started = time.perf_counter()
                with holding(clip, weights):
                    rows = tests[test](edited)
                seconds = time.perf_counter() - started
                if test == durability.EDIT:
                    compare_with_record(record, rows[0]["value"])
                fresh += joined(rows, unedited[beside], common | {"test": test, "seconds": seconds})
                write_runs(part, pd.DataFrame(fresh))
                bar.update()
    return [mark for mark, _ in jobs.values()]


def run_share(share, args, path, threads=0):
    """`run` of a share of the names, in a process that knows nothing yet.

    Args:
        share: (number of this process, names as people write them).
        threads: of this process; 0 leaves them.
    """
    number, names = share
    if threads:
        torch.set_num_threads(threads)
    clip = models.from_args(args, cli.settle(args))
    found, folder, left_out = on_record(args, clip.label)
    return run(args, clip, {k: r for k, r in found.items() if k[0] in names}, folder, left_out, path, number)


def compare_with_record(record, value):
    """Say so where an edit does not score on the test split what its record says."""
    said = record["splits"]["test"][record["method"]]["forget_acc1"]
    if abs(said - value) > 1e-6:
        tqdm.write(f"note: {record['name']}, {record['method']}: forget accuracy {value:.1%}, by its record {said:.1%}")


def main(argv=None):
    args = parse_args(argv)
    cli.settle(args)
    path = cli.check_result_dir(args) / "lasting" / "runs.parquet"
    out = files.check_writable(args.out or path.parent)
    frame = collect(path)
    if args.report:
        names = {plain_name(n).casefold() for n in args.celeb_name}
        label = models.label_of(args.model, args.clip_model_id)
        frame = frame[(frame["model"] == label) & frame["name"].str.casefold().isin(names)]
        if frame.empty:
            raise SlugError(
                f"{path} has no rows of {label} on {', '.join(args.celeb_name)}; give their --model, or run without --report"
            )
    else:
        names = list(dict.fromkeys(map(plain_name, args.celeb_name)))
        jobs = min(args.jobs, len(names))
        threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else 0
        work = functools.partial(run_share, args=args, path=path, threads=threads)
        shares = [(i, names[i::jobs]) for i in range(jobs)]
        marks = {m for part in pool.spread(work, shares, workers=jobs) for m in part}
        frame = collect(path)
        frame = frame[frame["made_with"].isin(marks)]
    order = {m: i for i, m in enumerate(naming.in_order(frame["method"]))}
    frame = frame.sort_values("method", key=lambda c: c.map(order), kind="stable")
    if out != path.parent:
        write_runs(out / "runs.parquet", frame)
    curves, original = durability_report.curves(frame)
    plot = out / f"{files.safe_name(frame['model'].iloc[0])}-relearning"
    names = frame["name"].nunique()
    title = f"Fine-tuning on pictures of the forgotten name: test split, {names} name{'s' * (names > 1)}"
    png = plot.with_name(f"{plot.name}.png")
    if curves:  # none where a run was stopped before
        plots.relearning(curves, original, title, plot)
        if args.out:
            files.place(png, png)
    text = durability_report.report(frame, png.name if curves else "")
    files.write_text(out / "REPORT.md", text)
    if args.readme:
        markdown.fill_blocks(args.readme, {"lasting": durability_report.readme_block(frame)})
    print(durability_report.overview(durability_report.table(frame)))
    print(f"{len(frame)} rows: {out / 'runs.parquet'}; report: {out / 'REPORT.md'}")


if __name__ == "__main__":
    cli.exit_with(main)
