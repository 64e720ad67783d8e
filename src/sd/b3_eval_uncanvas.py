"""UA, IRA, CRA and FID of everything that b2_unlearn_sd.py wrote for a pipeline, on the report half of the prompts.

Example: python src/sd/b3_eval_uncanvas.py --pipeline data/demo/models/mini-sd --prompts data/demo/UnlearnCanvas/prompts.csv
         python src/sd/b3_eval_uncanvas.py --judge clip --prompts data/prompts.csv
Writes under results/uncanvas/, or --out: csv/{style,class}.csv in the published columns, table.csv, report.md, a plot of
UA against IRA and CRA, and sheets of pictures before and after.
FID is of what must stay: each unlearned pipeline's pictures of the other concepts, those of one kind together, against as
many of --reference. Without --fid-weights its features are the object classifier's: never set that beside published figures.
With --judge clip, for names that no classifier knows, the unedited CLIP judges instead, and there is neither FID nor a plot.
"""

import contextlib

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

import pandas as pd
import torch
from tqdm import tqdm

from slug import canvas, cli, data, fid, files, lora, plots, report
from slug.data import plain_name
from slug.models import diffusion

FEWEST = 1000  # pictures a side from which on FID is given
SHOWN = 4, 6  # columns of a sheet: of the forgotten concept, of others


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    parser.add_argument("--prompts", default="data/UnlearnCanvas/prompts.csv", help="CSV of the prompts and their seeds")
    parser.add_argument("--classifiers", default="data/UnlearnCanvas/classifiers", help="folder of both classifiers")
    parser.add_argument("--judge", choices=("classifiers", "clip"), default="classifiers", help="what judges the pictures")
    parser.add_argument("--reference", default="data/UnlearnCanvas/data", help="real pictures, <Style>/<Object>/<n>.jpg")
    parser.add_argument("--fid-weights", default="", help="Inception weights in pytorch-fid's format, for FID as published")
    parser.add_argument(
        "--part", nargs=2, type=int, metavar=("I", "N"), help="make the pictures of the I-th of N parts, and nothing else"
    )
    parser.add_argument("--out", default="", help="folder to write; else results/uncanvas")
    parser.add_argument("--readme", default="", help="Markdown file whose uncanvas block is filled")
    return parser.parse_args(argv)


def stem_of(record):
    """A record's file name without its ending."""
    return record["delta"].removesuffix(".delta.safetensors")


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    results = cli.check_result_dir(args)
    out = files.check_writable(args.out or results / "uncanvas")
    pipeline = diffusion.from_args(args, device)
    requests = canvas.read_requests(args.prompts)
    asked = [r for r in requests if r.half == "report"]
    by_clip = args.judge == "clip"
    if by_clip:
        classifiers = canvas.ClipClassifiers(pipeline.clip, canvas.names_of(requests))
    else:
        classifiers = canvas.load_classifiers(args.classifiers, device)
    embed = fid.inception(args.fid_weights, device) if args.fid_weights else classifiers.features
    base = pipeline.hash()
    records = canvas.read_records(results / "sd", pipeline.tag, base, args.prompts)

    def look(stem, state, mark=""):
        """(pictures, {kind: correct}, features) within the context `state`; `mark` tells states of one name apart."""
        wanted = [(r.prompt, r.seed) for r in asked]
        with state:
            images = diffusion.kept_pictures(pipeline, wanted, results / "uncanvas/pictures", stem, [base, mark])
        return images, canvas.correct(asked, classifiers.logits(images), classifiers.labels), embed(images)

    def original():
        return look(f"{pipeline.tag}-original", contextlib.nullcontext())

    def by_delta(record):
        file = results / "sd" / record["delta"]
        return look(stem_of(record), pipeline.applied(pipeline.edit(file)), files.file_hash(file))

    def by_lora(record):
        folder = results / "sd" / record["lora"]["folder"]
        return look(f"{stem_of(record)}-lora", pipeline.with_lora(folder), files.file_hash(folder / lora.FILE))

    adapters = [r for r in records if r["lora"]]
    if args.part:
        states = [original, *(lambda r=r: by_delta(r) for r in records), *(lambda r=r: by_lora(r) for r in adapters)]
        for state in tqdm(states[args.part[0] - 1 :: args.part[1]], desc="pictures", unit="pipeline"):
            state()
        return
    before, right, features = original()
    rows, kept, steps = [], {}, []
    for record in tqdm(records, desc="unlearned", unit="concept"):
        kind, name, method = record["kind"], record["name"], record["method"]
        stem = stem_of(record)
        after, found, seen = by_delta(record)
        own = canvas.shows(kind, name, asked)
        common = {"kind": kind, "name": name, "n_images": len(asked), "seed": args.seed}
        rows.append({"method": "original", **common, **canvas.scores(kind, name, asked, right)._asdict()})
        cost = {k: record[k] for k in ("seconds", "peak_mem_mb", "params_share", "n_candidates")}
        cost |= {"storage_bytes": record["delta_bytes"], "step": record["chosen"][-1][1] if record["chosen"] else 0.0}
        cost["layer"] = " + ".join(layer for layer, _ in record["chosen"])
        rows.append({"method": method, **common, **cost, **canvas.scores(kind, name, asked, found)._asdict()})
        if record["lora"]:
            cost |= {"storage_bytes": record["lora"]["bytes"]}
            with_adapter = canvas.scores(kind, name, asked, by_lora(record)[1])
            rows.append({"method": f"{method}_lora", **common, **cost, **with_adapter._asdict()})
        stays = ~torch.tensor(own)
        kept.setdefault((method, kind), {})[name] = seen[stays]
        kept.setdefault(("original", kind), {})[name] = features[stays]  # the same pictures for every method
        part = pd.read_csv(results / "sd" / f"{stem}-steps.csv")
        steps.append(part.assign(method=method, kind=kind, name=name))
        places = [[i for i, o in enumerate(own) if o == mine] for mine in (True, False)]
        chosen = data.spread(places[0], SHOWN[0]) + data.spread(places[1], SHOWN[1])
        titles = [f"{plain_name(asked[i].object)}\n{plain_name(asked[i].style)}".strip() for i in chosen]
        hit = [[all(flags[i].item() for flags in r.values()) for i in chosen] for r in (right, found)]
        title = f"{plain_name(name)} ({kind}) forgotten by {method}"
        seen_by = "the unedited CLIP sees" if by_clip else "both classifiers see"
        plots.sheet([before[chosen], after[chosen]], titles, hit, SHOWN[0], title, out / f"sheet-{stem}", seen_by)
    frame = pd.DataFrame(rows).drop_duplicates(["method", "kind", "name"], ignore_index=True)
    if not by_clip:
        real = data.decode(
            sorted(str(p) for p in files.existing(args.reference, "reference", "give --reference").glob("*/*/*")),
            canvas.resize(pipeline.size),
            workers=args.workers,
        )[0]
        real = embed(real[torch.randperm(len(real), generator=torch.Generator().manual_seed(args.seed))])
    distance = {}
    for key, parts in ({} if by_clip else kept).items():
        mine = torch.cat(list(parts.values()))
        mine = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(args.seed))]
        n = min(len(mine), len(real))
        distance[key] = fid.frechet(mine[:n], real[:n]) if n >= FEWEST else float("nan")
    frame["FID"] = [distance.get((m, k), float("nan")) for m, k in zip(frame["method"], frame["kind"], strict=True)]
    frame = canvas.tidy(frame)
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    for kind, file in (("style", "style"), ("object", "class")):
        mine = frame[(frame["kind"] == kind) & (frame["method"] == "slug")]
        mine = mine.rename(columns={"name": "Unlearn Name", "step": "Step Size"})
        text = mine[["Unlearn Name", "Step Size", "UA", "IRA", "CRA"]].to_csv(index=False, lineterminator="\n")
        files.write_text(out / "csv" / f"{file}.csv", text)
    if by_clip:
        text = report.canvas(frame, "not taken") + "\n\n" + canvas.said_by_clip(asked)
    else:
        plots.canvas(pd.concat(steps), frame, f"{pipeline.tag}: candidates on the select half", out / "tradeoff")
        text = report.canvas(frame, "Inception" if args.fid_weights else "object classifier")
    report.publish(out / "report.md", text, "uncanvas", args.readme)


if __name__ == "__main__":
    cli.exit_with(main)
