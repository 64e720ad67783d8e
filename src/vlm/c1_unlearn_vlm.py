"""Make a LLaVA forget names by one step on one layer of its vision tower (paper, section 3).

Example: python src/vlm/c1_unlearn_vlm.py --celeb-name Elon_Musk --questions data/vlm/questions.jsonl
         python src/vlm/c1_unlearn_vlm.py --vlm data/demo/models/mini-llava --clip-model-id data/demo/models/mini-clip-hf ...
Takes the forget and retain gradients of the vision tower's CLIP (computed and kept under results/grads/ where there are
none), the front of the layers that the model reads, and the step whose answers to the validation questions forget the
name and keep the most of the rest. Writes under results/vlm/, per name: a .json record, a .csv of all steps, the
.delta.safetensors, and the Pareto plot. src/clip/a2_unlearn_slug.py apply puts a delta into the model's folder, and into
its CLIP's. Valid records are kept.
"""

import functools
import math
import time

import torch

from slug import cli, files, pool, system
from slug.artifacts import gradient_files, records
from slug.core import layers, slug
from slug.core.edit import edit_of
from slug.data.names import plain_name
from slug.evaluation import assistant, questions
from slug.models import vlm
from slug.models.clip import ALONE
from slug.reports import plots

NOT_SETTINGS = ("force", "celeb_name", "device", "workers", "result_dir", "jobs")


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    vlm.add_flags(parser)
    gradient_files.add_flags(parser)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a batch of the gradient pass")
    parser.add_argument("--questions", default="data/vlm/questions.jsonl", help="questions of both halves")
    parser.add_argument(
        "--wanted", type=float, default=0.0, help="forget accuracy on the validation split up to which a step forgets"
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        default=assistant.SIGMAS,
        help="standard deviations by which the margins of a name that counts as forgotten must lie below 0",
    )
    parser.add_argument("--evaluations", type=int, default=8, help="steps evaluated a layer, at most")
    parser.add_argument(
        "--fronts", type=int, default=3, help="Pareto fronts searched, one after the other until a step forgets and keeps"
    )
    parser.add_argument("--lost", type=float, default=0.02, help="share of what must stay that a step may lose to be enough")
    parser.add_argument("--whole-groups", action="store_true", help="move q k v, and both fc layers, only together")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with names, a model and threads of its own")
    parser.add_argument("--log-all", action="store_true", help="ask everything at every step")
    return parser.parse_args(argv)


def run(args, model, found, name, model_hash, settings):
    """Search, choose and write one name; returns the record."""
    judge = assistant.Judge(model, found, name, wanted=args.wanted, sigmas=args.sigmas)
    start = judge.original()
    forget, retain, _, _ = gradient_files.load_both(
        args, model.clip, name, model_hash, args.unlearn_method, args.batch_size, "vision"
    )
    rows = layers.figures(model.clip, forget, retain, model.candidates())
    system.reset_peak_memory(model.module.device)
    started = time.perf_counter()

    def enough(best):
        return best.forgets and best.retain >= start.retain - args.lost

    how = {"evaluations": args.evaluations, "alone": not args.whole_groups, "log_all": args.log_all}
    how |= {"desc": name, "deepest_first": True}
    steps, best = slug.search_fronts(model.clip, judge, rows, forget, enough, fronts=args.fronts, **how)
    seconds, gradient_s = time.perf_counter() - started, gradient_files.seconds(args, model.clip, name, args.unlearn_method)
    stem = files.resolve(args.result_dir) / "vlm" / records.file_name(model.label, name, "")
    edit = edit_of(model.clip, best.layer, forget, best.step)
    how = {"name": plain_name(name), "chosen": [(best.layer, best.step)], "start": start, "steps": steps, "best": best}
    counts = {f"n_{part}": len(rows) for part, rows in judge.asked.items()}
    method = args.unlearn_method.replace("calc_grad", "slug")
    written = records.write_search(stem, model, edit, method=method, counts=counts, **how)
    title, marked = f"{name}: vision tower of {model.label}", best.layer.removesuffix(ALONE)
    plots.pareto(rows, layers.pareto_front(rows), marked, title, stem.with_name(f"{stem.name}-pareto"))
    record = {
        "method": method,
        "name": plain_name(name),
        "model": model.label,
        "layer": best.layer,
        "step": best.step,
        **written,
        "seconds": gradient_s + seconds,
        "gradient_s": gradient_s,
        "peak_mem_mb": system.peak_memory_mb(model.module.device),
        **settings,
    }
    files.write_json(stem.with_name(f"{stem.name}.json"), record)
    return record


def one_line(record):
    """A record in one line for the terminal."""
    before, after = record["original_validation"], record["winner_validation"]
    asked = [k for k in questions.PARTS if not math.isnan(before[f"{k}_acc"])]
    shares = ", ".join(f"{k} {before[f'{k}_acc']:.1%} -> {after[f'{k}_acc']:.1%}" for k in asked)
    return (
        f"{record['name']}: {record['layer']} {record['step']:.4g}; validation split: {shares}; {record['n_candidates']} "
        f"candidates, {record['seconds']:.0f} s, delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%}"
    )


def forget(names, args, model=None, threads=0):
    """The records of names, one after the other: made, or kept where valid.

    Args:
        model: Vlm; loaded here where none is given, in a process that knows nothing yet.
        threads: of this process; 0 leaves them.
    """
    if threads:
        torch.set_num_threads(threads)
    model = model or vlm.from_args(args, cli.settle(args))
    folder, found, out = files.resolve(args.result_dir) / "vlm", questions.read(args.questions), []
    model_hash = gradient_files.model_hash(model.clip)
    settings = {"settings": cli.settings(args, without=NOT_SETTINGS), "versions": cli.versions()}
    common = {"vlm_hash": model.weights_hash(), "questions_hash": questions.digest(args.questions)}
    for name in names:
        inputs = common | gradient_files.sources(args, model.clip, name, args.unlearn_method)
        path = folder / records.file_name(model.label, name, ".json")
        record = None if args.force else records.valid(path, settings | inputs)
        if record is None:
            record = run(args, model, found, name, model_hash, settings | inputs)
        out.append(record)
        print(one_line(record), flush=True)
    return out


def main(argv=None):
    args = parse_args(argv)
    cli.check_jobs(args)
    device = cli.settle(args)
    cli.check_result_dir(args)
    questions.read(args.questions)  # before what takes long
    model = vlm.from_args(args, device)
    gradient_files.write_all(args, model.clip, encoder="vision")
    names = list(dict.fromkeys(args.celeb_name))
    jobs = min(args.jobs, len(names))
    if jobs == 1:
        forget(names, args, model)
        return
    del model
    do = functools.partial(forget, args=args, threads=max(1, torch.get_num_threads() // jobs))
    list(pool.spread(do, [[name] for name in names], workers=jobs))  # a name a time: some take thrice as long


if __name__ == "__main__":
    cli.exit_with(main)
