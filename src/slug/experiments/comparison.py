"""The comparison: every baseline over its grid, judged and chosen as SLUG is (paper, table 1; DESIGN.md, method rules).

A job is one method with one setting (a learning rate; for SSD a selection weight); each of its epochs (dampenings) is a
candidate. A finished job is a file, so a run that was stopped goes on after it.
"""

import csv
import datetime
import functools
import io
import itertools
import time

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from slug import cli, files, methods, models, system
from slug.artifacts import gradient_files, records
from slug.core import gradients, selection
from slug.core.edit import holding, kept
from slug.data import evaluation_sets
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.evaluation import clip_judge, clip_tasks, outcome
from slug.methods import grids, ssd
from slug.methods.training import Schedule

NOT_SETTINGS = (
    "force",
    "celeb_name",
    "device",
    "workers",
    "result_dir",
    "cache_gb",
    "unlearn_method",
    "lr",
    "selection",
    "epochs",
    "forget_epochs",
    "settings_from",
    "grow",
)
LOG_HEAD = "# ratio is the learning rate (ssd: the selection weight). Validation split; nan: not evaluated.\n"


def label(method, setting):
    """`lr 1e-05`, or for SSD `alpha 10`: what stands for the layer in a baseline's search.Step."""
    return f"{'lr' if methods.split(method)[0].TRAINS else 'alpha'} {setting:g}"


def stored_choices(path, names, methods):
    """{(name as people write it, method): (setting, number of the candidate)} that an earlier comparison chose, from its
    table.csv.

    Raises SlugError if the table lacks one of them.
    """
    path = files.existing(path, "table of an earlier comparison", "leave --settings-from out to search the grid")
    table = pd.read_csv(path)
    table = table[table["split"] == "validation"].set_index(["name", "method"])
    found = {}
    for key in itertools.product(map(plain_name, names), methods):
        if key not in table.index:
            raise SlugError(f"{path} has no row of {key[1]} for {key[0]}; leave --settings-from out to search the grid")
        found[key] = float(table.loc[key, "layer"].split()[-1]), int(table.loc[key, "step"])
    return found


def read_passes(args, clip, name, method, model_hash, batch_size):
    """What a method reads from gradient files: (fields of baselines.Material, seconds of the name's own pass, seconds of the
    retain pass that serves all names).

    Args:
        args, model_hash, batch_size: see gradients.load_both.
    """
    module, form = methods.split(method)
    made, own, shared = {}, 0.0, 0.0
    if "gradient" in module.NEEDS:
        kind = f"calc_grad{form}"
        made["gradient"] = gradient_files.load_both(args, clip, name, model_hash, kind, batch_size)[0]
        own = gradient_files.seconds(args, clip, name, kind)
    if "forget_importance" in module.NEEDS:
        kind = f"calc_importance{form}"
        found = gradient_files.load_both(args, clip, name, model_hash, kind, batch_size)
        made["forget_importance"], made["retain_importance"] = found[:2]
        own, shared = (gradient_files.seconds(args, clip, name, kind, side) for side in ("forget", "train"))
    return made, own, shared


def changed(clip, base):
    """{name: CPU tensor} of the model's parameters that differ from `base`, {name: tensor}."""
    return {n: p.detach().cpu().clone() for n, p in clip.parameters.items() if not torch.equal(p, base[n])}


def redo(clip, record, material):
    """What a comparison chose, made again: {name: tensor} of the weights that differ from the model's, which stay.

    Candidates' weights are not kept; setting, seed and data are, so that the same machine finds the same weights again and
    another one the same up to rounding.

    Args:
        record: the JSON record of a baseline.
        material: baselines.Material, of the pairs and gradients that the record was made with.
    """
    module, _ = methods.split(record["method"])
    made = record["settings"]
    schedule = Schedule(record["setting"], *(made[k] for k in ("wd", "epochs", "batch_size", "warmup", "seed")))
    with kept(clip, clip.parameters) as base:
        for number in module.candidates(clip, material, schedule if module.TRAINS else record["setting"]):
            if number == int(record["step"]):
                return changed(clip, base)
    raise SlugError(f"{record['method']} of {record['name']} has no candidate {record['step']}; run its stage again")


class Comparison:
    """One model and one evaluation; runs jobs and settles (name, method)."""

    def __init__(self, args):
        """args: flags of a3_unlearn_compare.py."""
        self.args = args
        self.clip = models.from_args(args, cli.settle(args))
        self.folder = cli.check_result_dir(args) / "clip"
        self.model_hash = gradient_files.model_hash(self.clip)
        self.names = list(dict.fromkeys(args.celeb_name))
        self.tars, left_out = {}, []
        for name in self.names:
            _, _, self.tars[name], left_out = self._gradients(name, "calc_grad")
        methods = [m for m in dict.fromkeys(args.unlearn_method) if m != "raw"]
        self.stored = stored_choices(args.settings_from, self.names, methods) if args.settings_from else None
        for name, method in itertools.product(self.names, methods):
            self.passes(name, method)  # what is missing is missed now, not after hours
        self.left_out = left_out  # one retain gradient serves all names, and its pairs are FT's
        self.identities, self.objects, self.split = evaluation_sets.load_evaluation(args, args, self.clip.transform)
        common = {
            "settings": cli.settings(args, without=NOT_SETTINGS),
            "rule": {"max_forget": selection.MAX_FORGET, "sigmas": selection.SIGMAS},
            "versions": cli.versions(),
        }
        train = files.resolve(args.train_data)
        self.made_with = {
            n: common
            | {"inputs": records.inputs_hash(self.model_hash, [], (self.identities, self.objects), [self.tars[n], train])}
            for n in self.names
        }
        self.jobs = {}  # (name, method) -> {setting: record}
        total = sum(len(self.grid(g[0], m)) * self.count(m) for m in methods for g in self.together(m))
        self.bar = tqdm(unit="candidate", total=total, desc="baselines")

    def _gradients(self, name, kind):
        return gradient_files.load_both(self.args, self.clip, name, self.model_hash, kind, self.args.grad_batch_size)

    def grid(self, name, method):
        """The settings asked for, ascending: those of the flags, or the one an earlier comparison chose."""
        if self.stored is not None:
            return [self.choice(name, method)[0]]
        return sorted(set(self.args.lr if methods.split(method)[0].TRAINS else self.args.selection))

    def choice(self, name, method):
        """(setting, number of the candidate) that an earlier comparison chose; (None, None) where the grid is searched."""
        return (None, None) if self.stored is None else self.stored[plain_name(name), method]

    def together(self, method):
        """[[name]] of the names that one training serves: FT's does not depend on the name, only on what was chosen."""
        if method != "ft":
            return [[n] for n in self.names]
        groups = {}
        for name in self.names:
            groups.setdefault(self.choice(name, method), []).append(name)
        return list(groups.values())

    def count(self, method):
        """Candidates of one job."""
        return self.epochs(method) if methods.split(method)[0].TRAINS else len(ssd.DAMPENINGS)

    def epochs(self, method):
        """Epochs of a method's training."""
        return self.args.forget_epochs if methods.split(method)[0] is methods.ga else self.args.epochs

    def expected(self, name, method):
        """What a valid record of a (name, method) says it was made with."""
        made = self.made_with[name]
        return made | {"settings": made["settings"] | {"epochs": self.epochs(method)}}

    # Only what is not finished needs features computed and pairs decoded, so these are made when first asked for.

    @functools.cached_property
    def evaluation(self):
        """zeroshot.Evaluation of the unedited model. Baselines edit both towers from the first layer on: nothing to keep."""
        return clip_tasks.Evaluation(
            self.clip, self.identities, self.objects, batch_size=self.args.eval_batch_size, cache_gb=0
        )

    @functools.cached_property
    def retain(self):
        """data.Pairs of the retain set, without the pairs of any forget name."""
        matcher = Matcher(self.left_out)
        tar = files.resolve(self.args.train_data)
        return load_pairs(tar, self.clip.transform, leave_out=matcher, workers=self.args.workers)

    @functools.cache  # noqa: B019  (one Comparison lives as long as the process)
    def judges(self, name):
        """{split: Judge} of a name."""
        args = self.args
        pairs = load_pairs(self.tars[name], self.clip.transform, workers=args.workers)
        k = args.fa_k or selection.fa_rank(len(self.identities.names))
        judge = functools.partial(
            clip_judge.Judge, self.clip, self.evaluation, self.evaluation.target(name), pairs, k=k, seed=args.seed
        )
        report = {task: ~mask for task, mask in self.split.items()}
        return {
            "validation": judge(split=self.split, limit=args.select_pictures, trace=args.trace),
            "test": judge(split=report),
        }

    @functools.cache  # noqa: B019
    def start(self, name):
        """search.Step of the unedited model."""
        return self.judges(name)["validation"].step("", 0.0, None, log_all=True)

    def passes(self, name, method):
        """As `read_passes`."""
        return read_passes(self.args, self.clip, name, method, self.model_hash, self.args.grad_batch_size)

    # -------------------------------------------------------------------------------------------------------- files

    def path(self, name, method, end, setting=None):
        """A result file of a (name, method), or of one of its jobs under compare/."""
        if setting is None:
            return self.folder / records.file_name(self.clip.label, name, end, method)
        end = f"-{label(method, setting).replace(' ', '')}{end}"
        return self.folder / "compare" / records.file_name(self.clip.label, name, end, method)

    def settled(self, name, method):
        """The valid record of a (name, method) that went through all settings and candidates asked for, or None."""
        record = None if self.args.force else records.valid(self.path(name, method, ".json"), self.expected(name, method))
        enough = record and set(self.grid(name, method)) <= set(record["grid"])
        return record if enough and record.get("only") in (None, self.choice(name, method)[1]) else None

    def write_log(self, name, method, setting, rows, times):
        """The published comparison log, `{date}_{model}_{name}_{method}_lr{lr}.txt`; an older one of the job goes."""
        end = f"_{files.safe_name(self.clip.label)}_{files.safe_name(name)}_{method}_{label(method, setting)}.txt"
        end, folder = end.replace(" ", ""), self.folder / "compare"
        for old in folder.glob(f"*{end}"):
            old.unlink()
        lines = []
        for row in (self.start(name), *rows):
            n = int(row.step)  # the epoch or dampening
            line = records.log_line(n, row._replace(step=setting if n else 0))
            lines.append(f"{line}, time: {times[n - 1] if n else 0:.1f}\n")
        files.write_text(folder / f"{datetime.date.today():%Y%m%d}{end}", LOG_HEAD + "".join(lines))

    # --------------------------------------------------------------------------------------------------------- work

    def candidates(self, name, method):
        """[search.Step] of all jobs of a (name, method) so far."""
        return [selection.Step(**row) for _, job in sorted(self.jobs[name, method].items()) for row in job["rows"]]

    def run(self, names, method, setting):
        """One training (SSD: one set of dampenings), every candidate scored for each of the names."""
        todo = []
        for name in names:
            mark = {"setting": setting, "only": self.choice(name, method)[1]}
            done = records.valid(self.path(name, method, ".json", setting), self.expected(name, method) | mark)
            jobs = self.jobs.setdefault((name, method), {})
            if done and not self.args.force:
                jobs[setting] = done
            else:
                todo.append(name)
        if not todo:
            self.bar.update(self.count(method))
            return
        module, _ = methods.split(method)
        args, clip = self.args, self.clip
        made, _, _ = self.passes(todo[0], method)
        material = methods.Material(self.judges(todo[0])["validation"].pairs, self.retain, methods.split(method)[1], **made)
        judges = {n: self.judges(n)["validation"] for n in todo}
        ahead = {n: selection.winner(self.candidates(n, method)) for n in todo}  # what a candidate has to beat
        only = self.choice(todo[0], method)[1]  # names that are trained together have it in common
        rows, best, weights, times, spent = {n: [] for n in todo}, {}, {}, [], 0.0
        schedule = Schedule(setting, args.wd, self.epochs(method), args.batch_size, args.warmup, args.seed)
        self.bar.set_postfix_str(f"{method} {label(method, setting)} {todo[0] if len(todo) == 1 else 'all names'}")
        system.reset_peak_memory(clip.device)
        with kept(clip, clip.parameters) as base:
            started = time.perf_counter()
            for number in module.candidates(clip, material, schedule if module.TRAINS else setting):
                spent += time.perf_counter() - started
                times.append(spent)
                self.bar.update()
                if only and number < only:
                    started = time.perf_counter()
                    continue
                with self.evaluation.same_weights():
                    steps = {
                        n: j.step(label(method, setting), number, gradients.BOTH, best=ahead[n]) for n, j in judges.items()
                    }
                for name, row in steps.items():
                    rows[name].append(row)
                    ahead[name] = selection.winner([r for r in (ahead[name], row) if r])
                    best[name] = selection.winner([r for r in (best.get(name), row) if r])
                    if best[name] is row:
                        weights[name] = changed(clip, base)
                if number == only:
                    break
                started = time.perf_counter()
        peak = system.peak_memory_mb(clip.device)
        for name in todo:
            path = self.path(name, method, ".json", setting)
            file = path.with_suffix(".safetensors")
            with files.replacing(file) as temporary:
                save_file(weights[name], temporary)
            self.write_log(name, method, setting, rows[name], times)
            job = {"delta": file.name, "delta_bytes": file.stat().st_size, "peak_mem_mb": peak, "times": times}
            job |= {"rows": [r._asdict() for r in rows[name]], "setting": setting, "only": only}
            job |= self.expected(name, method)
            files.write_json(path, job)
            self.jobs[name, method][setting] = job

    def compare(self, names, method):
        """All jobs of a method for names that share its training; writes and returns their records."""
        asked = self.grid(names[0], method)
        found = {n: self.settled(n, method) for n in names}
        todo = [n for n in names if not found[n]]
        self.bar.update(0 if todo else len(asked) * self.count(method))

        def chosen():
            best = {selection.winner(self.candidates(n, method)).layer for n in todo}
            return [s for s in self.jobs[todo[0], method] if label(method, s) in best]

        for setting in grids.growing(asked if todo else [], self.args.grow, chosen):
            self.bar.total += 0 if setting in asked else self.count(method)
            self.run(todo, method, setting)
        return [found[n] or self.settle(n, method) for n in names]

    def settle(self, name, method):
        """Choose among all candidates of a (name, method), report the choice on both splits, write the record."""
        jobs, rows = self.jobs[name, method], self.candidates(name, method)
        best = selection.winner(rows)
        setting, job = next((s, j) for s, j in jobs.items() if label(method, s) == best.layer)
        weights = load_file(self.path(name, method, ".safetensors", setting))
        inside = functools.partial(holding, self.clip, weights)
        splits = outcome.both_splits(self.judges(name), gradients.BOTH, inside, method, self.args.seed)
        base = {n: p.detach().cpu() for n, p in self.clip.parameters.items()}
        counts = {n: int((w != base[n]).sum()) for n, w in weights.items()}
        touched = sum(counts.values())
        _, own, shared = self.passes(name, method)
        record = {
            "method": method,
            "name": plain_name(name),
            "kind": self.evaluation.target(name).kind,
            "model": self.clip.label,
            "tag": self.clip.tag,
            "layer": best.layer,
            "step": best.step,
            "setting": setting,
            "grid": sorted(jobs),
            "only": self.choice(name, method)[1],
            "inside_grid": grids.inside(jobs, setting),
            "delta_bytes": job["delta_bytes"],
            "params_touched": touched,
            "touched_most": dict(sorted(counts.items(), key=lambda item: -item[1])[:5]),
            "params_share": touched / sum(p.numel() for p in base.values()),
            "n_candidates": len(rows),
            "winner_validation": best._asdict(),
            "seconds": own + job["times"][int(best.step) - 1],
            "gradient_s": own,
            "shared_s": shared,
            "search_s": sum(j["times"][-1] for j in jobs.values()) + sum(r.seconds for r in rows),
            "peak_mem_mb": job["peak_mem_mb"],
            "splits": splits,
            "seed": self.args.seed,
            **self.expected(name, method),
        }
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(selection.Step._fields)
        writer.writerows([self.start(name), *rows])
        files.write_text(self.path(name, method, "-steps.csv"), out.getvalue())
        files.write_json(self.path(name, method, ".json"), record)
        for s in jobs:  # the record is whole; the candidates' weights are of no more use
            self.path(name, method, ".safetensors", s).unlink(missing_ok=True)
        return record
