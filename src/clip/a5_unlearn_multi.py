"""Forget several names at once: the edits that each found by itself, applied together (paper, section 3).

Example: python src/clip/a5_unlearn_multi.py --celeb-name Elon_Musk Jeff_Bezos Taylor_Swift --model ViT-B-32 ...
         python src/clip/a5_unlearn_multi.py --celeb-name ... --joint    (trims steps, or lengthens them, where edits meet)
Needs a2_unlearn_slug.py for every name: each gradient was taken on the original model, each name has its own layer and step.
For the first 2, 3, ... of the names it reports, on the report half, what is forgotten and what stays, and the cosine
matrix before and after. Identities, objects and mixtures alike. Writes under results/clip/multi/, or --out: table.csv,
report.md and the matrices. src/clip/a2_unlearn_slug.py apply puts several deltas into one model folder and takes each out
again.
"""

import math

import pandas as pd
import torch
from tqdm import tqdm

from slug import cli, data, deltas, files, metrics, models, plots, records, report, search, zeroshot
from slug.errors import SlugError

FACTORS = 5  # values of a step's factor tried a name in the joint search
LONGEST = 4.0  # a step is lengthened to at most this many times its own


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.add_argument("--joint", action="store_true", help="beside the plain sum: scale the steps where edits interfere")
    parser.add_argument("--out", default="", help="folder to write; else results/clip/multi")
    parser.add_argument("--readme", default="", help="Markdown file whose multi block is filled")
    return parser.parse_args(argv)


class Group:
    """Names that are forgotten together, on both halves of one evaluation."""

    def __init__(self, evaluation, half, names, edits, seed):
        """
        Args:
            half: {task: (N,) bool} of the select half.
            edits: {name: {native parameter name: change}}.
        """
        self.evaluation, self.names, self.edits = evaluation, names, edits
        self.targets = [evaluation.target(n) for n in names]
        self.halves = {"select": half, "report": {t: ~m for t, m in half.items()}}
        self.seed = seed

    def edit(self, factors):
        """The sum of the names' edits, each times its factor."""
        total = {}
        for name, factor in zip(self.names, factors, strict=True):
            for n, change in self.edits[name].items():
                total[n] = total.get(n, 0) + factor * change
        return total

    def own_rows(self, target, half):
        """Pictures of one of the names."""
        return self.evaluation.rows(target.task, self.halves[half][target.task], label=target.label)

    def others(self, half):
        """{task: pictures of no name of the group}."""
        out = {}
        for task, t in self.evaluation.tasks.items():
            mine = torch.tensor([x.label for x in self.targets if x.task == task], dtype=torch.long)
            out[task] = torch.nonzero(self.halves[half][task] & ~torch.isin(t.pictures.labels, mine)).flatten()
        return out

    def forgotten(self, factors):
        """[search.Step] of the names on the select half, of the forget pictures alone."""
        found, edit = [], self.edit(factors)
        with self.evaluation.applied(edit), self.evaluation.same_weights():
            for target in self.targets:
                rank, margin = self.evaluation.forget(target, self.own_rows(target, "select"), zeroshot.BOTH)
                spread = margin.std().item() if len(margin) > 1 else 0.0
                step = search.Step("", 0.0, *zeroshot.accuracies(rank), margin=margin.mean().item(), margin_sd=spread)
                found.append(step)
        return found

    def joint(self):
        """Factors by which every name is still forgotten on the select half and each step is as short as it can be.

        Names that the sum does not forget get longer steps first; then each step in turn is bisected between 0 and
        its present factor.
        """
        factors = [1.0] * len(self.names)
        for _ in range(FACTORS):
            left = [not s.forgets for s in self.forgotten(factors)]
            if not any(left):
                break
            factors = [min(f * math.sqrt(2), LONGEST) if bad else f for f, bad in zip(factors, left, strict=True)]
        else:
            return factors
        for i in range(len(factors)):
            low, high = 0.0, factors[i]
            for _ in range(FACTORS):
                middle = (low + high) / 2
                tried = [*factors[:i], middle, *factors[i + 1 :]]
                if all(s.forgets for s in self.forgotten(tried)):
                    high = middle
                else:
                    low = middle
            factors[i] = high
        return factors

    def ranks(self, edited):
        """({name: ranks of its pictures}, {task: ranks of the others}) on the report half under the present weights."""
        with self.evaluation.same_weights():
            own = {t.name: self.evaluation.ranks(t.task, self.own_rows(t, "report"), edited) for t in self.targets}
            rest = {task: self.evaluation.ranks(task, rows, edited) for task, rows in self.others("report").items()}
        return own, rest

    def similarity(self, edited):
        """(names, cosines of mean picture features and name prompts) of the group and as many others, on the report half."""
        same = [t for t in self.targets if t.task == self.targets[0].task]
        return zeroshot.similarity(self.evaluation, same, self.halves["report"], edited, others=6, seed=self.seed)


def rows_of(group, method, factors, before, after):
    """Rows of table.csv: a row a name, then one of what stays."""
    common = {"method": method, "count": len(group.names), "names": "; ".join(group.names), "half": "report"}
    (own_before, rest_before), (own, rest) = before, after
    out = []
    for target, factor in zip(group.targets, factors, strict=True):
        rank = own[target.name]
        correct = int((rank < 1).sum())
        row = common | {"name": target.name, "kind": target.kind, "factor": factor, "n_forget": len(rank)}
        row |= {"forget_before": float((own_before[target.name] < 1).float().mean()), "forget_acc1": correct / len(rank)}
        out.append(row | {"forget_upper": metrics.interval(correct, len(rank))[1]})
    correct, total = (sum(f(r) for r in own.values()) for f in (lambda r: int((r < 1).sum()), len))
    row = common | {"name": "all", "kind": "", "forget_acc1": correct / total, "n_forget": total}
    row["forget_upper"] = metrics.interval(correct, total)[1]
    for task, rows in group.others("report").items():
        groups = [group.evaluation.tasks[task].pictures.groups[i] for i in rows.tolist()]
        change = metrics.paired_difference(rest_before[task] < 1, rest[task] < 1, groups, seed=group.seed)
        row |= {f"{task}_acc1": zeroshot.accuracies(rest[task])[0], f"n_{task}": len(rows)}
        row |= dict(zip((f"{task}_change", f"{task}_change_low", f"{task}_change_high"), change, strict=True))
    return [*out, row]


def main(argv=None):
    args = parse_args(argv)
    names = [data.plain_name(n) for n in args.celeb_name]
    if len(names) < 2:
        raise SlugError("give two names or more; for one there is a2_unlearn_slug.py")
    device = cli.settle(args)
    folder = cli.check_result_dir(args) / "clip"
    out = files.check_writable(args.out or folder / "multi")
    clip = models.from_args(args, device)
    edits = {}
    for name in names:
        path = folder / records.file_name(clip.label, name, ".delta.safetensors")
        edits[name] = deltas.native(clip, *deltas.read(path))
    identities, objects, half = data.load_evaluation(args, clip.transform)
    evaluation = zeroshot.Evaluation(clip, identities, objects, batch_size=args.eval_batch_size, cache_gb=0.0)
    table = []
    for count in tqdm(range(2, len(names) + 1), desc="counts", unit="count"):
        group = Group(evaluation, half, names[:count], edits, args.seed)
        before, (_, original, _) = group.ranks(None), group.similarity(None)
        ways = {"sum": [1.0] * count} | ({"joint": group.joint()} if args.joint else {})
        for method, factors in ways.items():
            with evaluation.applied(group.edit(factors)):
                table += rows_of(group, method, factors, before, group.ranks(zeroshot.BOTH))
                shown, after, n = group.similarity(zeroshot.BOTH)
            title = f"{count} names, {method}, report half, {n} pictures"
            plots.similarity(original, after, shown, title, out / f"{files.safe_name(clip.label)}-cosine-{method}-{count}")
    frame = pd.DataFrame(table)
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    report.publish(out / "report.md", report.multi(frame), "multi", args.readme)


if __name__ == "__main__":
    cli.exit_with(main)
