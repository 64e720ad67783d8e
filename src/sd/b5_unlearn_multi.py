"""Take several styles and objects out of a pipeline at once: the edits that b2_unlearn_sd.py found for each, added up.

Example: python src/sd/b5_unlearn_multi.py --style Van_Gogh Picasso --object Dogs Cats --prompts ...
Of the styles the first 2, 3, ... together, of the objects the same, and all of both: UA of each, IRA and CRA of the prompts
that show none of them, on the test split, beside the original. Needs a record of each concept. Writes multi.csv and
multi.md to results/uncanvas/, or --out. Pictures are kept, as b3_eval_uncanvas.py's are.
"""

import pandas as pd
import torch
from tqdm import tqdm

from slug import cli, files
from slug.artifacts import canvas_records, deltas
from slug.core.edit import applied, summed
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, statistics, unlearncanvas
from slug.models import diffusion
from slug.reports import markdown, pipelines


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    canvas_prompts.add_concept_flags(parser, "to forget together, two or more")
    parser.add_argument("--method", default="slug", help="whose edits are added up, as its records call it")
    parser.add_argument("--prompts", default="data/UnlearnCanvas/prompts.csv", help="CSV of the prompts and their seeds")
    parser.add_argument("--classifiers", default="data/UnlearnCanvas/classifiers", help="folder of both classifiers")
    parser.add_argument("--out", default="", help="folder to write; else results/uncanvas")
    parser.add_argument("--readme", default="", help="Markdown file whose uncanvas-multi block is filled")
    return parser.parse_args(argv)


def groups(concepts):
    """[(kind, name)] that are forgotten together: of each kind the first 2, 3, ..., and all where there are both kinds."""
    found = []
    for kind in canvas_prompts.KINDS:
        mine = [c for c in concepts if c[0] == kind]
        found += [mine[:count] for count in range(2, len(mine) + 1)]
    return [*found, concepts] if len({kind for kind, _ in concepts}) > 1 else found


def without(group, asked):
    """(N,) bool: which Requests show no concept of a group. SlugError where all show one."""
    rest = ~torch.tensor([canvas_prompts.shows(*concept, asked) for concept in group]).any(0)
    if not rest.any():
        raise SlugError(f"every prompt shows one of {', '.join(name for _, name in group)}; leave one out")
    return rest


def rows_of(group, asked, before, after, seed):
    """Rows of multi.csv: a row a concept and pipeline, original and sum.

    Args:
        group: [(kind, name)].
        asked: N Requests.
        before, after: {kind: (N,) bool correct} of the two pipelines.
    """
    rest, out = without(group, asked), []
    cells = [f"{r.style}/{r.object}" for r, stays in zip(asked, rest.tolist(), strict=True) if stays]
    for kind, name in group:
        own = torch.tensor(canvas_prompts.shows(kind, name, asked))
        rows = torch.nonzero(own | rest).flatten().tolist()
        common = {"count": len(group), "names": "; ".join(plain_name(n) for _, n in group), "kind": kind}
        common |= {"name": plain_name(name), "n_own": int(own.sum()), "n_rest": int(rest.sum()), "seed": seed}
        for method, right in (("original", before), ("sum", after)):
            mine = {k: r[rows] for k, r in right.items()}
            row = common | {"method": method, **unlearncanvas.scores(kind, name, [asked[i] for i in rows], mine)._asdict()}
            low, high = statistics.interval(int((~right[kind][own]).sum()), int(own.sum()))
            out.append(row | {"UA_low": low, "UA_high": high})
        for column, which in (("IRA", kind), ("CRA", canvas_prompts.OTHER[kind])):
            change = statistics.paired_difference(before[which][rest], after[which][rest], cells, seed=seed)
            out[-1] |= dict(zip((f"{column}_change{end}" for end in ("", "_low", "_high")), change, strict=True))
    return out


def main(argv=None):
    args = parse_args(argv)
    concepts = canvas_prompts.concepts(args)
    if len(concepts) < 2:
        raise SlugError("give two styles or objects, or more; for one there is b2_unlearn_sd.py")
    device = cli.settle(args)
    results = cli.check_result_dir(args)
    out = files.check_writable(args.out or results / "uncanvas")
    asked = [r for r in canvas_prompts.read_requests(args.prompts) if r.split == "test"]
    todo = groups(concepts)
    for group in todo:
        without(group, asked)
    pipeline = diffusion.from_args(args, device)
    classifiers = canvas_classifiers.load_classifiers(args.classifiers, device)
    base = pipeline.hash()
    records = canvas_records.read_records(results / "sd", pipeline.tag, base, args.prompts)
    records = {(r["kind"], r["name"]): r for r in records if r["method"] == args.method}
    lacks = next((c for c in concepts if (c[0], plain_name(c[1])) not in records), None)
    if lacks:
        raise SlugError(
            f"no record of {args.method} for the {' '.join(lacks)} with these prompts; run b2_unlearn_sd.py first"
        )
    paths = {c: results / "sd" / records[c[0], plain_name(c[1])]["delta"] for c in concepts}

    def right(group, stem):
        """{kind: (N,) bool} of the pipeline that carries the edits of a group."""
        state = [base, [files.file_hash(paths[c]) for c in group] or ""]
        with applied(pipeline, summed([deltas.of_model(pipeline, paths[c]) for c in group])):
            wanted = [(r.prompt, r.seed) for r in asked]
            made = diffusion.kept_pictures(pipeline, wanted, results / "uncanvas/pictures", stem, state)
        return unlearncanvas.correct(asked, diffusion.look_at(classifiers.logits, made), classifiers.labels)

    before = right([], f"{pipeline.tag}-original")
    rows = []
    for group in tqdm(todo, desc="together", unit="pipeline"):
        rows += rows_of(group, asked, before, right(group, f"{pipeline.tag}-{args.method}-together"), args.seed)
    frame = pd.DataFrame(rows)
    files.write_text(out / "multi.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    markdown.publish(out / "multi.md", pipelines.together(frame, args.method), "uncanvas-multi", args.readme)


if __name__ == "__main__":
    cli.exit_with(main)
