"""UA, IRA, CRA and FID of everything that b2_unlearn_sd.py wrote for a pipeline, on the test split of the prompts.

Example: python src/sd/b3_eval_uncanvas.py --pipeline data/demo/models/mini-sd --prompts data/demo/UnlearnCanvas/prompts.csv
          python src/sd/b3_eval_uncanvas.py --judge clip --prompts data/prompts.csv
Writes under results/uncanvas/, or --out: csv/{style,class}.csv in the published columns (of slug, else slug_w,
slug_ws), table.csv, report.md, sheets of pictures; and of the candidates on the validation split candidates.csv,
settings.json (with seeds and times) and tradeoff, a plot of the best UA against what has to stay of IRA and CRA. To --out
the prompts go, too, whose seeds the figures are of.
FID is of what must stay, one figure a method: each of its pipelines draws a share of FEWEST pictures or more that show
nothing it forgot, and the unedited pipeline draws the same prompts and seeds, against as many of --reference. Without
--fid-weights its features are the object classifier's: never set that beside published figures.
With --judge clip, for names that no classifier knows, the unedited CLIP judges instead, and there is neither FID nor a plot.
"""

import contextlib
from typing import NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

import pandas as pd
from tqdm import tqdm

from slug import cli, files
from slug.artifacts import adapters, canvas_records, deltas, gradient_files
from slug.core.edit import applied
from slug.data.images import by_batch, evenly_spaced
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, fid, unlearncanvas
from slug.models import diffusion
from slug.reports import markdown, pipelines, plots

SHOWN = 4, 6  # columns of a sheet: of the forgotten concept, of others
SHARES = [0.8 + 0.005 * i for i in range(41)]  # of IRA and CRA, that the best UA is given for
# What README holds the figures against: UA of one layer and of several rounds, at the part of IRA and CRA that must stay.
KEPT_BAR, ONE_LAYER_BAR, ROUNDS_BAR = 0.85, {"style": 0.86, "object": 0.75}, 0.95
GOES_ON_FROM = {f"{m}_rounds": m for m in gradient_files.SLUG}  # whose candidates a method has too


class State(NamedTuple):
    """What draws pictures: a context within which the pipeline is edited."""

    stem: str
    context: contextlib.AbstractContextManager
    mark: str  # tells states of one stem apart
    share: list[int]  # which of FID's requests it draws


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    parser.add_argument("--prompts", default="data/UnlearnCanvas/prompts.csv", help="CSV of the prompts and their seeds")
    parser.add_argument("--classifiers", default="data/UnlearnCanvas/classifiers", help="folder of both classifiers")
    parser.add_argument("--judge", choices=("classifiers", "clip"), default="classifiers", help="what judges the pictures")
    parser.add_argument("--reference", default="data/UnlearnCanvas/data", help="real pictures, <Style>/<Object>/<n>.jpg")
    parser.add_argument("--fid-weights", default="", help="Inception weights in pytorch-fid's format, for FID as published")
    parser.add_argument("--no-fid", action="store_true", help="leave FID out, which takes pictures beside the test split's")
    parser.add_argument(
        "--part", nargs=2, type=int, metavar=("I", "N"), help="make the pictures of the I-th of N parts, and nothing else"
    )
    parser.add_argument("--out", default="", help="folder to write; else results/uncanvas")
    parser.add_argument("--readme", default="", help="Markdown file whose uncanvas block is filled")
    return parser.parse_args(argv)


def stem_of(record):
    """A record's file name without its ending."""
    return record["delta"].removesuffix(".delta.safetensors")


def drawn_as(record, records):
    """The record whose pictures a record's are: rounds that went no further than their first layer are that edit again."""
    mine = GOES_ON_FROM.get(record["method"]), *(record[k] for k in ("kind", "name", "chosen"))
    same = (r for r in records if (r["method"], r["kind"], r["name"], r["chosen"]) == mine)
    return next(same, record)


def fid_requests(args, records, asked, first_seed):
    """(fid.deal's requests, paths of as many reference pictures, remark); both empty where FID cannot be given.

    Args:
        asked: [Request] of the test split.
        first_seed: of the pictures beside these.
    """
    if args.no_fid or args.judge == "clip":
        return [], [], "FID was left out (--no-fid, --judge clip)."
    of = {}
    for r in records:
        of.setdefault(r["method"], []).append((r["kind"], r["name"]))
    shared = [c for c in next(iter(of.values())) if all(c in found for found in of.values())]
    dealt = fid.deal(asked, shared, max(fid.FEWEST, len(asked)), first_seed)
    if not dealt:
        return [], [], "FID is left out: no concept was forgotten by every method."
    folder = files.existing(args.reference, "reference", "give --reference, or --no-fid")
    real = fid.reference(folder, [r for _, r in dealt], len(dealt), args.seed)
    if len(real) < fid.FEWEST:
        remark = (
            f"FID is left out: it takes {fid.FEWEST} different pictures a side, and the reference has {len(real)} of what "
        )
        return [], [], f"{remark}is asked for and stays."
    remark = f"FID: of {len(real)} different pictures a side of what stays, dealt to a method's pipelines of {len(shared)} "
    return dealt[: len(real)], real, f"{remark}concepts; one figure a method, for styles and objects together."


def said_by_clip(asked):
    """What figures of ClipClassifiers rest on, for Requests of the test split."""
    names = canvas_prompts.names_of(asked)["object"]
    return pipelines.judged_by_clip(names, [sum(canvas_prompts.shows("object", n, asked)) for n in names])


def write_candidates(out, records, steps, title):
    """candidates.csv, settings.json and the plot of what the candidates could reach.

    Args:
        steps: DataFrame of all candidates on the validation split, with the columns method, kind, name.
        title: before the plot's own.
    """
    seeds = {key: part["seeds"].iloc[0] for key, part in steps.groupby(["method", "kind", "name"])}
    lines = steps.drop(columns="seeds").to_csv(index=False, lineterminator="\n", float_format="%.6g")
    files.write_text(out / "candidates.csv", lines)
    common = {k: v for k, v in records[0].items() if all(r.get(k) == v for r in records)}
    rest = [{k: v for k, v in r.items() if k not in common} for r in records]
    for r, own in zip(records, rest, strict=True):
        own["seeds"] = seeds[r["method"], r["kind"], r["name"]]
    files.write_json(out / "settings.json", {"common": common, "records": rest})
    panels = {}
    for kind, part in steps.groupby("kind", sort=False):
        of = dict(list(part.groupby("method", sort=False)))
        curves = {m: pd.concat([f, of[GOES_ON_FROM[m]]]) if GOES_ON_FROM.get(m) in of else f for m, f in of.items()}
        curves = {m: pipelines.curve(f, SHARES) for m, f in curves.items()}
        marks = {"bar of one layer": (KEPT_BAR, ONE_LAYER_BAR[kind]), "bar of rounds": (KEPT_BAR, ROUNDS_BAR)}
        panels[f"{part['name'].nunique()} {kind}s"] = SHARES, curves, marks
    title = f"{title}: what candidates reach on the validation split; those that could not win are not scored whole"
    plots.canvas(panels, max(r["settings"]["keep"] for r in records), title, out / "tradeoff")


def shared_cost(args, clip, records):
    """What SLUG takes once for all concepts, in words; "" where the gradients are not there any more."""
    said = []
    for method in gradient_files.SLUG:
        name = next((r["name"].replace(" ", "_") for r in records if r["method"] == method), None)
        with contextlib.suppress(SlugError):
            if name:
                seconds = gradient_files.seconds(args, clip, name, gradient_files.along(method), "train")
                said.append(f"{method} {seconds:.0f} s")
    if not said:
        return ""
    return f"Seconds are of one concept, without what SLUG takes of the retain set once for all of them: {', '.join(said)}."


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    results = cli.check_result_dir(args)
    out = files.check_writable(args.out or results / "uncanvas")
    pipeline = diffusion.from_args(args, device)
    requests = canvas_prompts.read_requests(args.prompts)
    asked = [r for r in requests if r.split == "test"]
    by_clip = args.judge == "clip"
    if by_clip:
        classifiers = canvas_classifiers.ClipClassifiers(pipeline.clip, canvas_prompts.names_of(requests))
    else:
        classifiers = canvas_classifiers.load_classifiers(args.classifiers, device)
    base = pipeline.hash()
    records = canvas_records.read_records(results / "sd", pipeline.tag, base, args.prompts)
    # Beyond the seeds of all cells, so that no other picture has FID's.
    first_seed = (max(r.seed for r in requests) // canvas_prompts.APART + 1) * canvas_prompts.APART
    dealt, real, remark = fid_requests(args, records, asked, first_seed)
    known = set(asked)

    def draw(state):
        """Paths of the pictures of `asked`, and of FID's that fall to the state, some of which are among the first."""
        mine = [dealt[i][1] for i in state.share]
        more = [r for r in mine if r not in known]
        paths = []
        with state.context:
            for stem, part in ((state.stem, asked), (f"{state.stem}-fid", more)):
                wanted, folder = [(r.prompt, r.seed) for r in part], results / "uncanvas/pictures"
                paths += diffusion.kept_pictures(pipeline, wanted, folder, stem, [base, state.mark])
        of = dict(zip([*asked, *more], paths, strict=True))
        return paths[: len(asked)], [of[r] for r in mine]

    def look(paths):
        """{kind: correct} of the pictures of `asked`."""
        return unlearncanvas.correct(asked, diffusion.look_at(classifiers.logits, paths), classifiers.labels)

    def original():
        return State(f"{pipeline.tag}-original", contextlib.nullcontext(), "", list(range(len(dealt))))

    def by_delta(record):
        record = drawn_as(record, records)
        file, concept = results / "sd" / record["delta"], (record["kind"], record["name"])
        mine = [i for i, (c, _) in enumerate(dealt) if c == concept]
        return State(stem_of(record), applied(pipeline, deltas.of_model(pipeline, file)), files.file_hash(file), mine)

    def by_lora(record):
        record = drawn_as(record, records)
        folder = results / "sd" / record["lora"]["folder"]
        return State(f"{stem_of(record)}-lora", pipeline.with_lora(folder), files.file_hash(folder / adapters.FILE), [])

    if args.part:
        once = [r for r in records if drawn_as(r, records) is r]
        with_adapter = [r for r in once if r["lora"]]
        states = [original, *(lambda r=r: by_delta(r) for r in once), *(lambda r=r: by_lora(r) for r in with_adapter)]
        for state in tqdm(cli.part_of(args.part, states), desc="pictures", unit="pipeline"):
            draw(state())
        return

    def embed(images):
        return {"features": network(images)}

    if dealt:  # before what takes long: it says what is wrong with the reference
        network = fid.inception(args.fid_weights, device) if args.fid_weights else classifiers.features
        found = by_batch(embed, [str(p) for p in real], unlearncanvas.resize(pipeline.size), workers=args.workers)
        target = found.get("features", ())
        if len(target) < len(real):
            raise SlugError(f"{len(real) - len(target)} pictures in {args.reference} cannot be read; take them out of it")
    before, of_fid = draw(original())
    right, drawn = look(before), {"original": dict(enumerate(of_fid))}
    rows, steps, drawings = [], [], []
    for record in tqdm(records, desc="unlearned", unit="concept"):
        kind, name, method = record["kind"], record["name"], record["method"]
        stem = stem_of(record)
        state = by_delta(record)
        after, of_fid = draw(state)
        found = look(after)
        drawn.setdefault(method, {}).update(zip(state.share, of_fid, strict=True))
        own = canvas_prompts.shows(kind, name, asked)
        common = {"kind": kind, "name": name, "n_images": len(asked), "seed": args.seed}
        rows.append({"method": "original", **common, **unlearncanvas.scores(kind, name, asked, right)._asdict()})
        cost = {k: record[k] for k in ("seconds", "peak_mem_mb", "params_share", "n_candidates")}
        for first in (
            r for r in records if r["method"] == GOES_ON_FROM.get(method) and (r["kind"], r["name"]) == (kind, name)
        ):
            cost["n_candidates"] += first["n_candidates"]
            cost["peak_mem_mb"] = max(cost["peak_mem_mb"], first["peak_mem_mb"])
        cost |= {"storage_bytes": record["delta_bytes"], "step": record["chosen"][-1][1] if record["chosen"] else 0.0}
        cost["layer"] = " + ".join(layer for layer, _ in record["chosen"])
        cost["inside_grid"] = record.get("inside_grid")
        rows.append({"method": method, **common, **cost, **unlearncanvas.scores(kind, name, asked, found)._asdict()})
        if record["lora"]:
            cost |= {"storage_bytes": record["lora"]["bytes"]}
            with_adapter = unlearncanvas.scores(kind, name, asked, look(draw(by_lora(record))[0]))
            rows.append({"method": f"{method}_lora", **common, **cost, **with_adapter._asdict()})
        part = pd.read_csv(results / "sd" / f"{stem}-steps.csv")
        steps.append(part.assign(method=method, kind=kind, name=name))
        places = [[i for i, o in enumerate(own) if o == mine] for mine in (True, False)]
        chosen = evenly_spaced(places[0], SHOWN[0]) + evenly_spaced(places[1], SHOWN[1])
        titles = [f"{plain_name(asked[i].object)}\n{plain_name(asked[i].style)}".strip() for i in chosen]
        hit = [[all(flags[i].item() for flags in r.values()) for i in chosen] for r in (right, found)]
        title = f"{plain_name(name)} ({kind}) forgotten by {method}"
        shown = [diffusion.read_pictures([paths[i] for i in chosen]) for paths in (before, after)]
        seen_by = "the unedited CLIP sees" if by_clip else "both classifiers see"
        plots.sheet(shown, titles, hit, SHOWN[0], title, out / f"sheet-{stem}", seen_by)
        drawings.append(out / f"sheet-{stem}.png")
    frame = pd.DataFrame(rows).drop_duplicates(["method", "kind", "name"], ignore_index=True)
    distance = {}
    for method, paths in drawn.items() if dealt else ():
        mine = diffusion.look_at(embed, [paths[i] for i in range(len(dealt))])
        distance[method] = fid.frechet(mine["features"], target)
    frame["FID"] = frame["method"].map(distance).astype(float)
    frame = pipelines.tidy(frame)
    files.write_text(out / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    one_layer = next((m for m in gradient_files.SLUG if m in set(frame["method"])), "slug")
    for kind, file in (("style", "style"), ("object", "class")):
        mine = frame[(frame["kind"] == kind) & (frame["method"] == one_layer)]
        mine = mine.rename(columns={"name": "Unlearn Name", "step": "Step Size"})
        text = mine[["Unlearn Name", "Step Size", "UA", "IRA", "CRA"]].to_csv(index=False, lineterminator="\n")
        files.write_text(out / "csv" / f"{file}.csv", text)
    if by_clip:
        text = pipelines.report(frame, "not taken") + "\n\n" + said_by_clip(asked)
    else:
        write_candidates(out, records, pd.concat(steps), pipeline.tag)
        drawings.append(out / "tradeoff.png")
        text = pipelines.report(frame, "Inception" if args.fid_weights else "object classifier", remark)
    text += f"\n\n{shared}" if (shared := shared_cost(args, pipeline.clip, records)) else ""
    if args.out:
        files.place(files.resolve(args.prompts), out / "prompts.csv")
    for path in drawings if args.out else ():
        files.place(path, path)
    markdown.publish(out / "report.md", text, "uncanvas", args.readme)


if __name__ == "__main__":
    cli.exit_with(main)
