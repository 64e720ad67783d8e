"""Forget names: one step on one layer each (paper, section 3), or apply and revert a delta that was found.

Example: python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
         python src/clip/a2_unlearn_slug.py --celeb-name Elon_Musk --layer visual.proj --step 3.5      (redo one)
         python src/clip/a2_unlearn_slug.py apply  --delta results/clip/X.delta.safetensors [more] --model-dir M --out E
         python src/clip/a2_unlearn_slug.py revert --delta X.delta.safetensors [more] --model-dir E --out M
         python src/clip/a2_unlearn_slug.py list --model-dir E
         python src/clip/a2_unlearn_slug.py adapter --delta X.delta.safetensors --out A              (LoRA, for peft)
Needs a1_compute_grad.py. Searches every layer of both Pareto fronts on the validation split of the pictures and reports the
winner on the other half. Writes under results/clip/: Pareto, step-size and cosine plots, a step log a layer, and per name
a .json record, a .csv of all steps and the .delta.safetensors that carries the edit. Valid records are kept.
On several devices: torchrun --nproc-per-node=N src/clip/a2_unlearn_slug.py ...
"""

import csv
import io
import sys
import time

from tqdm import tqdm

from slug import cli, distributed, files, models, system
from slug.artifacts import adapters, deltas, gradient_files, records
from slug.core import layers, search, selection, slug
from slug.core.edit import applied, edit_of
from slug.data import evaluation_sets
from slug.data.names import plain_name
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.evaluation import clip_judge, clip_tasks, outcome, reference
from slug.reports import clip_report, plots

NOT_SETTINGS = ("force", "celeb_name", "device", "workers", "result_dir", "cache_gb", "lookahead")  # change no result


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.add_argument(
        "--unlearn-method",
        choices=("slug", "slug_o", "slug_w", "slug_ws"),
        default="slug",
        help="_o: contrastive forget loss; _w, _ws: along the whitened gradient (slug.whitening)",
    )
    parser.add_argument("--evaluations", type=int, default=10, help="steps evaluated a layer, at most")
    parser.add_argument("--fronts", type=int, default=1, help="Pareto fronts of each encoder whose layers are searched")
    parser.add_argument("--search-rule", choices=("robust", "paper"), default="robust", help="how steps are bracketed")
    parser.add_argument("--choose", choices=("retain", "deepest"), default="retain", help="deepest: the paper's layer rule")
    parser.add_argument("--log-all", action="store_true", help="evaluate every column at every step")
    parser.add_argument(
        "--lookahead", type=int, default=0, help="evaluations whose forget pictures go together; 0: 3 on CUDA, else 1"
    )
    parser.add_argument("--plain", action="store_true", help="judge the slow, published way; the same figures")
    parser.add_argument("--layer", default="", help="try this layer instead of the fronts")
    parser.add_argument("--step", type=float, default=0.0, help="with --layer: this step alone, no search")
    parser.add_argument("--force", action="store_true", help="do again what is valid")
    args = parser.parse_args(argv)
    if args.step and not args.layer:
        raise SlugError("--step needs --layer")
    return args


def run_name(args, clip, evaluation, split, name, forget, retain, tar, settings):
    """Search, choose, report and write everything of one name; returns the record, in the first process only."""
    target = evaluation.target(name)
    pairs = load_pairs(tar, clip.transform, workers=args.workers)
    k = args.fa_k or selection.fa_rank(len(evaluation.tasks["identities"].pictures.names))
    rows = layers.figures(clip, forget, retain)
    fronts = layers.fronts(rows)
    front = [r for part in layers.fronts(rows, args.fronts).values() for r in part]
    if args.layer:
        front = [r for r in rows if r.name == args.layer]
        if not front:
            raise SlugError(f"{args.layer!r} is no layer that SLUG may edit; it has e.g. {rows[0].name}, {rows[-1].name}")
    judge = clip_judge.Judge(
        clip, evaluation, target, pairs, split, k=k, seed=args.seed, limit=args.select_pictures, trace=args.trace
    )
    rank, _ = distributed.mine()
    depth = 1 if args.plain else args.lookahead or (3 if clip.device.type == "cuda" else 1)
    test_split = {task: ~mask for task, mask in split.items()}
    reporter = clip_judge.Judge(clip, evaluation, target, pairs, test_split, k=k, seed=args.seed)
    start = judge.step("", 0.0, None, log_all=True)

    judge.trace_s, started = 0.0, time.perf_counter()
    if args.step:
        with applied(clip, edit_of(clip, args.layer, forget, args.step)):
            best = judge.step(args.layer, args.step, args.layer, log_all=True)
        curves = {args.layer: [best]}
    else:
        bar = tqdm(front, desc=f"{name}: layers", unit="layer", disable=rank > 0)
        curves, best = slug.search_all(
            clip,
            judge,
            bar,
            forget,
            evaluations=args.evaluations,
            rule=args.search_rule,
            choose=args.choose,
            log_all=args.log_all or args.plain,
            depth=depth,
        )
    seconds = time.perf_counter() - started - judge.trace_s

    edited = best.layer
    edit = edit_of(clip, best.layer, forget, best.step)
    judges = {"validation": judge, "test": reporter}
    splits = outcome.both_splits(judges, edited, lambda: applied(clip, edit), args.unlearn_method, args.seed)
    with applied(clip, edit):
        names, similar, n_shown = outcome.similarity(evaluation, [target], reporter.split, edited, seed=args.seed)
        images, truth, said = outcome.shown(evaluation, target, reporter.split, edited, seed=args.seed)
    _, similar_before, _ = outcome.similarity(evaluation, [target], reporter.split, None, seed=args.seed)
    _, _, said_before = outcome.shown(evaluation, target, reporter.split, None, seed=args.seed)

    if rank:
        return None
    folder = files.resolve(args.result_dir) / "clip"

    def path(end, part=""):
        return folder / records.file_name(clip.label, name, end, part)

    delta = path(".delta.safetensors")
    metrics = splits["test"][args.unlearn_method] | {"split": "test", "method": args.unlearn_method}
    deltas.save(delta, clip, edit, name=plain_name(name), layer=best.layer, step=best.step, metrics=metrics)
    for encoder, part in fronts.items():
        title = f"{plain_name(name)}: {encoder} encoder of {clip.label}"
        every = [r for r in rows if r.encoder == encoder]
        plots.pareto(every, part, best.layer, title, path("", f"pareto-{encoder}"))
    title = f"{plain_name(name)}, test split, {n_shown} pictures"
    plots.similarity(similar_before, similar, names, title, path("", "cosine"))
    title = f"{plain_name(name)}, test split: top-1 before and after"
    plots.pictures(images, truth, said_before, said, title, path("", "pictures"))
    for layer, steps in curves.items():
        log = records.step_log(start, steps, layer)
        files.write_text(folder / "steps" / path(f"-{files.safe_name(layer)}.txt").name, log)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(selection.Step._fields)
    writer.writerows([start, *(s for steps in curves.values() for s in steps)])
    files.write_text(path("-steps.csv"), out.getvalue())
    parameters = sum(p.numel() for p in clip.parameters.values())
    touched = sum(t.numel() for t in edit.values())
    kind = gradient_files.along(args.unlearn_method)
    gradient_s, shared_s = (gradient_files.seconds(args, clip, name, kind, side) for side in ("forget", "train"))
    record = {
        "method": args.unlearn_method,
        "name": plain_name(name),
        "kind": target.kind,
        "model": clip.label,
        "tag": clip.tag,
        "layer": best.layer,
        "group": list(clip.group(best.layer)),
        "step": best.step,
        "relative_step": best.step / (10 * layers.first_step([clip.parameters[n] for n in edit], [forget[n] for n in edit])),
        "delta": delta.name,
        "delta_bytes": delta.stat().st_size,
        "params_touched": touched,
        "params_share": touched / parameters,
        "n_candidates": sum(len(s) for s in curves.values()),
        "fronts": {e: [r._asdict() for r in part] for e, part in fronts.items()},
        "winner_validation": best._asdict(),
        "seconds": gradient_s + seconds,
        "gradient_s": gradient_s,
        "shared_s": shared_s,
        "search_s": seconds,
        "peak_mem_mb": system.peak_memory_mb(clip.device),
        "splits": splits,
        "seed": args.seed,
        **settings,
    }
    clip_report.draw_steps(record, folder)
    files.write_json(path(".json"), record)
    return record


def search_names(args):
    device = cli.settle(args)
    rank = distributed.start(device)
    folder = cli.check_result_dir(args)
    clip = models.from_args(args, device)
    system.reset_peak_memory(clip.device)
    model_hash = gradient_files.model_hash(clip)
    method = gradient_files.along(args.unlearn_method)
    loaded = {n: gradient_files.load_both(args, clip, n, model_hash, method, args.batch_size) for n in args.celeb_name}
    identities, objects, split = evaluation_sets.load_evaluation(args, args, clip.transform)
    evaluation = None
    for name in loaded:
        forget, retain, tar, _ = loaded[name]
        settings = {
            "settings": cli.settings(args, without=NOT_SETTINGS),
            "inputs": records.inputs_hash(model_hash, (forget, retain), (identities, objects)),
            "rule": {"max_forget": selection.MAX_FORGET, "sigmas": selection.SIGMAS, "close": search.CLOSE},
            "versions": cli.versions(),
        }
        path = folder / "clip" / records.file_name(clip.label, name, ".json")
        record = None if args.force else records.valid(path, settings)
        if record is None:
            if evaluation is None:
                kind = reference.PlainEvaluation if args.plain else clip_tasks.Evaluation
                evaluation = kind(clip, identities, objects, batch_size=args.eval_batch_size, cache_gb=args.cache_gb)
            record = run_name(args, clip, evaluation, split, name, forget, retain, tar, settings)
        elif not rank:
            print(f"valid, kept: {path}")
        if not rank:
            print(records.one_line(record))
    if not rank:
        records.write_important_layers(folder / "clip", clip.label)


def write_adapter(argv):
    parser = cli.parser(
        "Write a delta as a LoRA adapter that peft.PeftModel.from_pretrained takes beside a Hugging Face CLIP."
    )
    parser.add_argument("--delta", required=True, help="a .delta.safetensors file that edits linear layers")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--residual", type=float, default=0.02, help="part of the edit that the adapter may leave out")
    args = parser.parse_args(argv)
    edit, header = deltas.read(args.delta)
    factors = adapters.adapter(edit, args.residual)
    adapters.save_peft(files.resolve(args.out), factors, header["model"], (files.resolve(args.delta).name, header))
    said = "; ".join(f"{n} rank {f.rank}, {f.residual:.1%} left out" for n, f in factors.items())
    print(f"adapter: {said} -> {files.resolve(args.out)}")


def edit_folder(command, argv):
    parser = cli.parser(f"{command} deltas of a model folder (open_clip, Hugging Face, diffusers, LLaVA).")
    parser.add_argument("--model-dir", required=True, help="model folder to start from")
    if command != "list":
        parser.add_argument(
            "--delta", nargs="+", required=True, help=".delta.safetensors files; to revert, their names are enough"
        )
        parser.add_argument("--out", required=True, help="model folder to write; may be the same")
    args = parser.parse_args(argv)
    if command == "list":
        for name, header in deltas.of_folder(args.model_dir).items():
            print(f"{name}: {header['layer']}, step {float(header['step']):.6g}, made for {header['model']}")
        return
    out = getattr(deltas, command)(args.delta, args.model_dir, args.out)
    print(f"{command}: {', '.join(args.delta)} -> {out}")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("apply", "revert", "list"):
        edit_folder(argv[0], argv[1:])
    elif argv and argv[0] == "adapter":
        write_adapter(argv[1:])
    else:
        search_names(parse_args(argv))


if __name__ == "__main__":
    cli.exit_with(main)
