"""Take styles, objects or characters out of a pipeline by one step on one layer of its text tower (paper, section 3).

Example: python src/sd/b2_unlearn_sd.py --style Van_Gogh --object Dogs --prompts data/UnlearnCanvas/prompts.csv
         python src/sd/b2_unlearn_sd.py --object iron_man mickey_mouse --select clip --prompts data/prompts.csv
         python src/sd/b2_unlearn_sd.py --style Van_Gogh --method uce --prompts ...
Needs b1_compute_grad.py and the prompts of a0_create_prompts_uncanvas.py, whose validation split chooses the step: by the
classifiers on generated pictures, or with --select clip by the unedited CLIP on them. Writes under results/sd/, per
concept: a .json record, a .csv of all steps with their seeds, the .delta.safetensors that carries the edit, and for SLUG
the Pareto plot and -lora/, the same edit as an adapter that diffusers loads (of linear layers only).
src/clip/a2_unlearn_slug.py apply puts a delta into a pipeline folder. Valid records are kept, those of other prompts or of
another judge not overwritten: give each run a --result-dir of its own.
"""

import argparse
import itertools
import time

from tqdm import tqdm

from slug import cli, files, system
from slug.artifacts import adapters, canvas_records, deltas, gradient_files, records
from slug.core import gradients, layers, losses, preconditioning, slug
from slug.core.edit import applied, edit_of, summed
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs, some
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, unlearncanvas
from slug.methods import esd, grids, uce
from slug.methods.pipeline_prompts import without
from slug.models import diffusion
from slug.models.clip import ALONE
from slug.reports import pipelines, plots

METHODS = (*gradient_files.SLUG, "uce", "esd")
ROUNDS = {f"{m}_rounds": m for m in gradient_files.SLUG}  # by several layers: --rounds, or 3
NOT_SETTINGS = ("force", "part", "style", "object", "device", "workers", "result_dir")
# A pipeline forgets only at steps far beyond a tenth of the weights: 1, 4, 16, 64 times that, then bisected.
REACH = {"growth": 4, "far": 64, "below": False}
# Of the peers: weights and learning rates, GROW half decades more on either side while the best stands at an end.
GRIDS, GROW = {"uce": (0.1, 0.32, 1, 3.2, 10, 32), "esd": (1e-4, 3.2e-4, 1e-3)}, 4
ESD_COUNT = 4


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    canvas_prompts.add_concept_flags(parser)
    parser.add_argument("--method", choices=(*METHODS, *ROUNDS), default="slug", help="a variant of SLUG, or a baseline")
    parser.add_argument("--prompts", default="data/UnlearnCanvas/prompts.csv", help="CSV of the prompts and their seeds")
    parser.add_argument("--classifiers", default="data/UnlearnCanvas/classifiers", help="folder of both classifiers")
    parser.add_argument("--select", choices=("classifiers", "clip"), default="classifiers", help="what judges the pictures")
    parser.add_argument("--wanted", type=float, default=0.9, help="UA on the validation split from which on a step forgets")
    parser.add_argument("--evaluations", type=int, default=8, help="steps evaluated a layer, at most")
    parser.add_argument(
        "--fronts", type=int, default=3, help="Pareto fronts searched, one after the other until a step forgets"
    )
    parser.add_argument("--whole-groups", action="store_true", help="q k v and fc1 fc2 together only, none of them alone")
    parser.add_argument("--layer", default="", help="with --step: no search, this layer, as records and CSVs call it")
    parser.add_argument("--step", type=float, default=0.0, help="with --layer: this step")
    parser.add_argument("--rounds", type=int, default=1, help="above 1: several layers, one a round, gradients taken anew")
    parser.add_argument("--rounds-wanted", type=float, default=0.98, help="the same of a round after the first")
    parser.add_argument(
        "--select-others", type=int, default=100, help="pictures of other concepts that a step is judged by, at most"
    )
    parser.add_argument("--keep", type=float, default=0.87, help="part of IRA, and of CRA, that a step must leave")
    parser.add_argument("--lora-residual", type=float, default=0.02, help="part of the edit that its adapter may leave out")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a batch of the gradient pass")
    parser.add_argument("--tar-dir", default="data/tar_files", help="folder of the forget sets' tars")
    parser.add_argument("--train-data", default="data/laion/laion400m/00000.tar", help="tar of the retain set")
    parser.add_argument(
        "--part", nargs=2, type=int, default=(1, 1), metavar=("I", "N"), help="the I-th of N parts of the concepts only"
    )
    parser.add_argument("--force", action="store_true", help="do again what is valid")
    args = parser.parse_args(argv)
    if args.method in ROUNDS:
        args.method, args.rounds = ROUNDS[args.method], args.rounds if args.rounds > 1 else 3
    if args.rounds > 1 and args.method not in gradient_files.SLUG:
        raise SlugError(f"--rounds is of SLUG; {args.method} has none, leave it out")
    if bool(args.layer) != bool(args.step):
        raise SlugError("--layer and --step go together: a known step, taken without a search")
    if args.layer and (args.rounds > 1 or args.method not in gradient_files.SLUG):
        raise SlugError("--layer and --step are of one step of SLUG; leave out --rounds, and take a method of SLUG's")
    return args


def label_of(args):
    """The method's name in records and tables."""
    return f"{args.method}_rounds" if args.method in gradient_files.SLUG and args.rounds > 1 else args.method


def check_apart(path, prompts_hash, select):
    """SlugError where a record at `path` is of other prompts or of another judge: one run would take away another's."""
    try:
        record = files.read_json(path)
    except SlugError:  # none, or a damaged one
        return
    if (record["prompts_hash"], record["settings"]["select"]) != (prompts_hash, select):
        raise SlugError(f"{path} is of other prompts or another judge; give another --result-dir, or --force to replace it")


def gradients_at(args, pipeline, name, tar, left_out):
    """(forget, retain gradient) of the CLIP at its present weights, as b1 takes them at the original ones."""
    clip, how = pipeline.clip, {"batch_size": args.batch_size, "encoder": "language"}
    own, every = (load_pairs(t, clip.transform, workers=args.workers) for t in (tar, files.resolve(args.train_data)))
    matcher = Matcher(left_out)
    rest = some(every, [i for i, caption in enumerate(every.captions) if not matcher.find(caption)])
    found = [
        gradients.compute(clip, pairs, loss, desc=f"gradient {name}", **how)[0]
        for pairs, loss in ((own, losses.FORGET[""]), (rest, losses.contrastive))
    ]
    if args.method != "slug":
        tars = {
            n: files.resolve(gradient_files.forget_tar(args, n))
            for n in gradient_files.spared(args, clip, name, gradient_files.along(args.method))
        }
        held = {"": every} | {n: load_pairs(t, clip.transform, workers=args.workers) for n, t in tars.items()}
        how |= {"padded": True}
        sums = {n: preconditioning.moments(clip, pairs, desc=f"inputs {name}", **how) for n, pairs in held.items()}
        found[0] = preconditioning.whitened(found[0], preconditioning.staying(clip, held, sums, name, **how))
    return found


def one_layer(args, pipeline, judge, name, forget, retain):
    """Search front after front at the present weights until a step is found that forgets, or take the one that is asked for:
    (candidates, rows of all layers, first front, change of judge.best where a candidate became it, else {})."""
    rows = layers.figures(pipeline.clip, forget, retain, pipeline.candidates())
    if args.layer:
        if args.layer.removesuffix(ALONE) not in {r.name for r in rows}:
            raise SlugError(f"{args.layer!r} is no layer that SLUG may edit; it has e.g. {rows[0].name}, {rows[-1].name}")
        change = edit_of(pipeline.clip, args.layer, forget, args.step)
        with judge.applied(change):
            judge.best = judge.step(args.layer, args.step, None, log_all=True)
        return [judge.best], rows, layers.pareto_front(rows), change
    how = {"evaluations": args.evaluations, "alone": not args.whole_groups, "fronts": args.fronts, "desc": name} | REACH
    how["settled"] = judge.settled
    steps, _ = slug.search_fronts(pipeline.clip, judge, rows, forget, lambda _: judge.best.forgets, **how)
    best = judge.best
    change = edit_of(pipeline.clip, best.layer, forget, best.step) if any(s is best for s in steps) else {}
    return steps, rows, layers.pareto_front(rows), change


def by_slug(args, pipeline, judge, name, model_hash, first):
    """SLUG's candidates and choice: (steps, edit, [(layer, step)], (rows, front) of the first gradients).

    Args:
        first: record and edit of one round, to go on from; None to make it.
    """
    forget, retain, tar, left_out = gradient_files.load_both(
        args, pipeline.clip, name, model_hash, gradient_files.along(args.method), args.batch_size, "language"
    )
    if first is None:
        steps, rows, front, edit = one_layer(args, pipeline, judge, name, forget, retain)
        return steps, edit, [(judge.best.layer, judge.best.step)] if edit else [], (rows, front)
    record, edit = first
    steps, chosen = [], [tuple(c) for c in record["chosen"]]
    judge.best = unlearncanvas.Step(**record["winner_validation"])._replace(wanted=args.rounds_wanted)
    while chosen and len(chosen) < args.rounds and not judge.best.forgets:
        with applied(pipeline, edit), applied(pipeline.clip, edit):
            found, _, _, change = one_layer(args, pipeline, judge, name, *gradients_at(args, pipeline, name, tar, left_out))
        steps += found
        if not change:
            break
        edit = summed([edit, change])
        chosen.append((judge.best.layer, judge.best.step))
    return steps, edit, chosen, None


def peer(args, pipeline, judge):
    """The same of a peer: (steps, edit, [(setting, number)], {"grid": settings tried, "inside_grid": see search.inside})."""
    own = list(dict.fromkeys(r.prompt for r in judge.own))
    if args.method == "uce":
        of = {r.prompt: without(r, judge.kind) for r in judge.own}
        others = list(dict.fromkeys(r.prompt for r in judge.others))
        neutral = [of[p] for p in own]

        def made(weight):
            return uce.candidates(pipeline, own, neutral, others, [weight])
    else:
        seeds = [6000 + i for i in range(len(own))]

        def made(rate):
            return esd.candidates(pipeline, own, seeds, rate, ESD_COUNT, args.seed)

    steps, kept, tried = [], {}, {}  # tried: {label: setting}

    def chosen():
        """The setting of the best candidate so far; none while no candidate stays above the floors."""
        return [tried[judge.best.layer]] if judge.best.layer in tried else []

    for setting in grids.growing(GRIDS[args.method], GROW, chosen):
        for label, number, edit in tqdm(made(setting), desc=f"{judge.name}: {args.method} {setting:g}", unit="candidate"):
            tried[label] = setting
            with applied(pipeline, edit):
                steps.append(judge.step(label, number, None))
            if judge.best is steps[-1]:
                kept = edit
    grid = sorted(tried.values())
    grid = {"grid": grid, "inside_grid": grids.inside(grid, chosen()[0]) if kept else None}
    return steps, kept, [(judge.best.layer, judge.best.step)] if kept else [], grid


def run(args, pipeline, classifiers, asked, kind, name, model_hash, settings, first=None):
    """Search, choose and write one concept; returns the record. `first`: see `slug`."""
    wanted = args.rounds_wanted if first else args.wanted
    how = {"wanted": wanted, "keep": args.keep, "others": args.select_others, "seed": args.seed}
    judge = unlearncanvas.Judge(pipeline, classifiers, asked, kind, name, **how)
    folder = files.resolve(args.result_dir) / "sd"
    stem = folder / canvas_records.file_stem(pipeline.tag, label_of(args), kind, name)
    system.reset_peak_memory(pipeline.pipe.device)
    started, gradient_s, grid = time.perf_counter(), 0.0, {}
    if args.method in gradient_files.SLUG:
        steps, edit, chosen, plane = by_slug(args, pipeline, judge, name, model_hash, first)
        gradient_s = gradient_files.seconds(args, pipeline.clip, name, gradient_files.along(args.method))
        if plane:
            title = f"{plain_name(name)}: text tower of {pipeline.tag}"
            marked = chosen[0][0].removesuffix(ALONE) if chosen else None
            plots.pareto(*plane, marked, title, stem.with_name(f"{stem.name}-pareto"))
    else:
        steps, edit, chosen, grid = peer(args, pipeline, judge)
    seconds = time.perf_counter() - started
    if first:
        seconds += first[0]["seconds"] - gradient_s
    seeds = " ".join(str(s) for s in sorted({r.seed for r in judge.own}))
    how = {"name": plain_name(name), "chosen": chosen, "start": judge.start, "steps": steps, "best": judge.best}
    how |= {"counts": {"n_forget": len(judge.own), "n_retain": len(judge.others)}, "columns": [("seeds", seeds)]}
    written = records.write_search(stem, pipeline, edit, method=label_of(args), **how)
    adapter = None
    if args.method in gradient_files.SLUG and adapters.fits(edit):
        factors = adapters.adapter(edit, args.lora_residual)
        delta = written["delta"], deltas.read(stem.with_name(written["delta"]))[1]
        file = adapters.save(stem.with_name(f"{stem.name}-lora"), factors, pipeline.tag, delta)
        adapter = {
            "folder": file.parent.name,
            "bytes": file.stat().st_size,
            "ranks": [f.rank for f in factors.values()],
            "residuals": [f.residual for f in factors.values()],
        }
    record = {
        "method": label_of(args),
        "kind": kind,
        "name": plain_name(name),
        "pipeline": pipeline.tag,
        **written,
        **grid,
        "lora": adapter,
        "other_seeds": " ".join(str(r.seed) for r in judge.others),
        "seconds": gradient_s + seconds,
        "gradient_s": gradient_s,
        "peak_mem_mb": system.peak_memory_mb(pipeline.pipe.device),
        **settings,
    }
    files.write_json(stem.with_name(f"{stem.name}.json"), record)
    return record


def main(argv=None):
    args = parse_args(argv)
    asked = canvas_prompts.read_requests(args.prompts)
    if not canvas_prompts.concepts(args):
        args.style, args.object = canvas_prompts.names_of(asked).values()
    args.celeb_name, args.forget_data = [*args.style, *args.object], ""
    device = cli.settle(args)
    folder = cli.check_result_dir(args) / "sd"
    pipeline = diffusion.from_args(args, device)
    model_hash = gradient_files.model_hash(pipeline.clip)
    if args.select == "clip":
        classifiers = canvas_classifiers.ClipClassifiers(pipeline.clip, canvas_prompts.names_of(asked))
    else:
        classifiers = canvas_classifiers.load_classifiers(args.classifiers, device)
    common = {"pipeline_hash": pipeline.hash(), "prompts_hash": files.file_hash(files.resolve(args.prompts))}
    common["judge_hash"] = classifiers.hash()
    common["versions"] = cli.versions()

    def record_of(args, kind, name, first=None):
        """The valid record of one concept, else that of a new search."""
        inputs = common | {"settings": cli.settings(args, without=(*NOT_SETTINGS, "celeb_name"))}
        if args.method in gradient_files.SLUG:
            inputs |= gradient_files.sources(args, pipeline.clip, name, gradient_files.along(args.method))
        else:
            inputs["asked_grid"] = [*GRIDS[args.method], GROW]
        path = folder / f"{canvas_records.file_stem(pipeline.tag, label_of(args), kind, name)}.json"
        record = None if args.force else records.valid(path, inputs)
        return record or run(args, pipeline, classifiers, asked, kind, name, model_hash, inputs, first)

    concepts = cli.part_of(args.part, canvas_prompts.concepts(args))
    for (kind, name), label in itertools.product([] if args.force else concepts, {args.method, label_of(args)}):
        path = folder / f"{canvas_records.file_stem(pipeline.tag, label, kind, name)}.json"
        check_apart(path, common["prompts_hash"], args.select)
    for kind, name in concepts:
        first = None
        if args.rounds > 1 and args.method in gradient_files.SLUG:
            record = record_of(argparse.Namespace(**vars(args) | {"rounds": 1, "force": False}), kind, name)
            first = record, deltas.of_model(pipeline, folder / record["delta"])
        print(pipelines.one_line(record_of(args, kind, name, first)))


if __name__ == "__main__":
    cli.exit_with(main)
