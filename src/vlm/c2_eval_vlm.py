"""What a LLaVA says after c1_unlearn_vlm.py, on the test split: names and what else is asked, with transcripts.

Example: python src/vlm/c2_eval_vlm.py --vlm data/demo/models/mini-llava --clip-model-id data/demo/models/mini-clip-hf \\
             --questions data/demo/vlm/questions.jsonl
         python src/vlm/c2_eval_vlm.py --utility data/MME data/gqa/testdev_balanced_questions.json data/mmbench_dev_en.tsv
         python src/vlm/c2_eval_vlm.py ... --factors 0.5 0.7 1.4 2    (how far each name's step would have to go)
Names in drawings that the model's training never saw stand in rows of their own. An answer is right if the name stands in it
in whole words; else by its first word or its whole text. Writes under results/vlm/: table.csv, report.md, a transcript
{model}-{name}.jsonl of every question with the answers before and after, and a sheet of pictures with answers; with
--factors also curve.csv, a row a name and multiple of its step, and the plot of it: what more forgetting costs.
"""

import json
import os
from collections import Counter

import pandas as pd
from tqdm import tqdm

from slug import cli, files
from slug.artifacts import deltas, records
from slug.core.edit import applied, summed
from slug.data.images import evenly_spaced
from slug.errors import SlugError
from slug.evaluation import questions, statistics
from slug.models import vlm
from slug.reports import assistants, markdown, plots

COLUMNS = (
    "method name layer step forget_acc forget_unseen_acc retain_acc identities_acc identities_unseen_acc objects_acc "
    "utility_acc n_forget n_forget_unseen n_retain n_identities n_identities_unseen n_objects n_utility n_drawings "
    "n_pictures forget_upper identities_change identities_change_low identities_change_high objects_change "
    "objects_change_low objects_change_high utility_change utility_change_low utility_change_high said_instead "
    "commonest_share known_share seconds peak_mem_mb storage_bytes params_share n_candidates seed"
).split()
SHOWN = 4, 5  # columns of a sheet: of the forgotten name, of others


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    vlm.add_flags(parser)
    parser.add_argument("--questions", default="data/vlm/questions.jsonl", help="questions of both halves")
    parser.add_argument(
        "--factors", nargs="*", type=float, default=[], help="multiples of each step that are scored besides 0 and 1"
    )
    parser.add_argument("--utility", nargs="*", default=[], help="public sets (MME, GQA, MMBench), asked besides")
    parser.add_argument("--out", default="", help="folder that gets a copy of what is written")
    parser.add_argument("--readme", default="", help="Markdown file whose vlm block is filled")
    return parser.parse_args(argv)


def figures(rows, right):
    """{column: value} of one state; what stays of names is `retain`: other identities and objects."""
    rows = rows | {"retain": rows["identities"] + rows["objects"]}
    found = {f"{p}_acc": sum(right[i] for i in r) / len(r) if r else float("nan") for p, r in rows.items()}
    return found | {f"n_{p}": len(r) for p, r in rows.items()}


def changes(asked, rows, before, after, seed):
    """Paired changes of what must stay, with 95% bootstrap intervals over drawings (over pictures where none is named)."""
    found = {}
    for part in questions.STAY:
        if not rows[part]:
            continue
        groups = [asked[i].group or str(asked[i].image) for i in rows[part]]
        pair = ([state[i] for i in rows[part]] for state in (before, after))
        names = (f"{part}_change", f"{part}_change_low", f"{part}_change_high")
        found |= dict(zip(names, statistics.paired_difference(*pair, groups, seed=seed), strict=True))
    return found


def main(argv=None):
    args = parse_args(argv)
    if min(args.factors, default=1) <= 0:
        raise SlugError("--factors must be above 0: they are multiples of a step")
    device = cli.settle(args)
    out = cli.check_result_dir(args) / "vlm"
    copies = files.check_writable(args.out or out)
    model = vlm.from_args(args, device)
    found = questions.read(args.questions)
    marker = questions.Marker(found)
    asked = [q for q in found if q.split == "test"]
    asked += [q._replace(split="test") for path in args.utility for q in questions.read(path)]
    made = [files.read_json(p) for p in sorted(out.glob(f"{files.safe_name(model.label)}-*.json"))]
    if not made:
        raise SlugError(f"{out} has no record of {model.label}; make them with src/vlm/c1_unlearn_vlm.py")
    wanted = {"vlm_hash": model.weights_hash(), "questions_hash": questions.digest(args.questions)}
    stale = [r["name"] for r in made if any(r.get(k) != v for k, v in wanted.items())]
    if stale:
        said = f"the records of {', '.join(stale)} are of other weights or questions"
        raise SlugError(f"{said}; run c1_unlearn_vlm.py again, or remove them")

    def states(wanted, desc):
        """{index of a question: (the answer, whether it is right)} of those in `wanted`."""
        said = model.answer([asked[i] for i in wanted], desc=desc)
        return {i: (s, marker.right(asked[i], s)) for i, s in zip(wanted, said, strict=True)}

    parts = {r["name"]: questions.parts(asked, r["name"]) for r in made}
    used = {name: sorted(i for rows in part.values() for i in rows) for name, part in parts.items()}
    before = states(sorted(set().union(*used.values())), "unedited model")
    table, kinds, curve, written = [], [], [], []
    for record in tqdm(made, desc="names", unit="name"):
        name, rows = record["name"], parts[record["name"]]
        edit = deltas.of_model(model, out / record["delta"])
        with applied(model, edit):
            now = states(used[name], name)
        (said, right), (after, hit) = ([{i: f[k] for i, f in state.items()} for k in (0, 1)] for state in (before, now))
        common = {"name": name, "seed": args.seed, "n_drawings": len({asked[i].group for i in rows["forget"]})}
        table.append({"method": "original", **common, **figures(rows, right)})
        own = rows["forget"] + rows["forget_unseen"]
        instead = Counter(after[i] for i in own if not hit[i])
        cost = {k: record[k] for k in ("layer", "step", "seconds", "peak_mem_mb", "params_share", "n_candidates")}
        if instead:
            cost["commonest_share"] = instead.most_common(1)[0][1] / instead.total()
            cost["known_share"] = sum(n for text, n in instead.items() if marker.knows(text)) / instead.total()
        cost["storage_bytes"] = record["delta_bytes"]
        cost["said_instead"] = "; ".join(f"{text} ({n})" for text, n in instead.most_common(4))
        row = {"method": record["method"], **common, **cost, **figures(rows, hit)}
        # One picture asked about in several wordings is one trial: named in any of them, it counts as named.
        named = (
            pd.Series([hit[i] for i in rows["forget"]], dtype=bool).groupby([asked[i].image for i in rows["forget"]]).any()
        )
        row |= {"n_pictures": len(named), "forget_upper": statistics.interval(int(named.sum()), len(named))[1]}
        table.append(row | changes(asked, rows, right, hit, args.seed))
        for kind in dict.fromkeys(asked[i].task for i in rows["utility"]):
            mine = [i for i in rows["utility"] if asked[i].task == kind]
            share = [sum(state[i] for i in mine) / len(mine) for state in (right, hit)]
            kinds.append({"name": name, "kind": kind, "before": share[0], "after": share[1], "n": len(mine)})
        for factor in sorted({0.0, 1.0, *args.factors}) if args.factors else ():
            state = {0.0: right, 1.0: hit}.get(factor)
            if state is None:
                with applied(model, summed([edit], [factor])):
                    state = {i: f[1] for i, f in states(used[name], f"{name}, {factor:g} steps").items()}
            row = {"name": name, "layer": record["layer"], "factor": factor, "step": factor * record["step"]}
            curve.append(row | figures(rows, state) | changes(asked, rows, right, state, args.seed))
        lines = [
            q._asdict()
            | {"image": q.image.rsplit("/", 1)[-1] if isinstance(q.image, str) else "", "part": part}
            | {"before": said[i], "after": after[i], "right_before": right[i], "right_after": hit[i]}
            for part, chosen in rows.items()
            for i in chosen
            for q in [asked[i]]
        ]
        stem = out / records.file_name(model.label, name, "")
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        written += [stem.with_name(f"{stem.name}.jsonl"), stem.with_name(f"sheet-{stem.name}.png")]
        files.write_text(written[-2], text)
        chosen = [evenly_spaced(rows["forget"], SHOWN[0]), evenly_spaced(rows["identities"] + rows["objects"], SHOWN[1])]
        plots.answers(
            [asked[i].picture() for i in chosen[0] + chosen[1]],
            [(said[i], after[i]) for i in chosen[0] + chosen[1]],
            [(right[i], hit[i]) for i in chosen[0] + chosen[1]],
            len(chosen[0]),
            f"{model.label}: {name} forgotten",
            stem.with_name(f"sheet-{stem.name}"),
        )
    frame = pd.DataFrame(table).reindex(columns=COLUMNS)
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    text = assistants.report(frame, pd.DataFrame(kinds))
    quoted = text
    if curve:
        frame, stem = pd.DataFrame(curve), out / f"{files.safe_name(model.label)}-curve"
        written += [out / "curve.csv", stem.with_name(f"{stem.name}.png")]
        files.write_text(out / "curve.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        plots.assistant(
            frame, f"{model.label}, test split: multiples of each name's step; filled: the step that was chosen", stem
        )
        text += "\n\n" + assistants.curve_report(frame, written[-1].name)
        readme = files.resolve(args.readme or "README.md").parent
        quoted += "\n\n" + assistants.curve_report(frame, os.path.relpath(copies / written[-1].name, readme))
    markdown.publish(out / "report.md", text, "vlm", args.readme, quoted)
    for path in (out / "table.csv", out / "report.md", *written) if copies != out else ():
        files.place(path, copies / path.name)


if __name__ == "__main__":
    cli.exit_with(main)
