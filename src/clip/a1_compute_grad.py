"""Forget and retain gradients, one pass each at the original weights (paper, section 3).

Example: python src/clip/a1_compute_grad.py --celeb-name Elon_Musk --model ViT-B-32 --pretrained laion400m_e32
Needs a0_create_tar.py. Writes results/grads/{name}_{tag}/forget_grads.pt and train_grads.pt, which is linked from
results/grads/retain_{tag}/: one retain gradient serves all names, and leaves out the pairs that say any of them.
Valid files are kept. Several processes: torchrun --nproc-per-node N src/clip/a1_compute_grad.py ...
"""

import os
import time

from slug import cli, data, files, gradients, losses, models, processes

METHODS = ("calc_grad", "calc_importance", "calc_grad_o", "calc_importance_o")


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--unlearn-method", choices=METHODS, default="calc_grad", help="_o: contrastive forget loss")
    parser.add_argument("--celeb-name", nargs="+", required=True, help="forget names; the retain set leaves all of them out")
    parser.add_argument("--forget-data", default="", help="tar of the forget set (one name only); else --tar-dir/{name}.tar")
    parser.add_argument("--tar-dir", default="data/tar_files", help="folder of the curated tars")
    parser.add_argument("--train-data", default="data/laion/laion400m/00000.tar", help="tar of the retain set")
    parser.add_argument(
        "--grad-checkpointing", action="store_true", help="compute activations twice: less memory, a third more time"
    )
    parser.add_argument("--force", action="store_true", help="compute again what is valid")
    return parser.parse_args(argv)


def link(source, target):
    """Make `target` a relative link to `source`, replacing what stood there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        os.symlink(os.path.relpath(source, target.parent), temporary)


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    rank = processes.start(device)
    cli.check_result_dir(args)
    clip = models.from_args(args, device)
    clip.checkpointing = args.grad_checkpointing
    square = "importance" in args.unlearn_method
    retain_tar = files.existing(args.train_data, "retain set", "give --train-data, a tar of pairs")
    jobs = []  # (folder, side, loss, tar, names to leave out)
    for name in dict.fromkeys(args.celeb_name):
        tar = files.existing(
            gradients.forget_tar(args, name), "forget set", f"run src/clip/a0_create_tar.py --name {name} first"
        )
        loss = losses.FORGET["_o" if args.unlearn_method.endswith("_o") else ""]
        jobs.append((gradients.folder(args.result_dir, name, clip.tag), "forget", loss, tar, []))
    retain_folder = gradients.folder(args.result_dir, "retain", clip.tag)
    jobs.append((retain_folder, "train", losses.contrastive, retain_tar, sorted(map(data.plain_name, args.celeb_name))))

    identity = gradients.model_hash(clip)
    for folder, side, loss, tar, left_out in jobs:
        path = folder / gradients.file_name(side, args.unlearn_method)
        mark = gradients.fingerprint(identity, tar, loss, args.batch_size, square, left_out)
        if not args.force and gradients.is_valid(path, mark):
            print(f"valid, kept: {path}")
            continue
        started = time.perf_counter()
        matcher = data.Matcher(left_out) if left_out else None
        pairs = data.load_pairs(tar, clip.transform, leave_out=matcher, workers=args.workers)
        decoded = time.perf_counter()
        grads, figures = gradients.compute(
            clip, pairs, loss, batch_size=args.batch_size, square=square, desc=f"{side} {folder.name}"
        )
        seconds = {"decode_s": decoded - started, "gradient_s": time.perf_counter() - decoded}
        if rank == 0:
            record = {**mark, **figures, **seconds, "broken": pairs.broken, "convention": gradients.CONVENTION}
            gradients.save(path, grads, {**record, "settings": cli.settings(args), "versions": cli.versions()})
            print(f"{len(pairs.captions)} pairs, {pairs.broken} broken, loss {figures['loss']:.4f} -> {path}")
    if rank == 0:
        retain = retain_folder / gradients.file_name("train", args.unlearn_method)
        for folder, side, *_ in jobs:
            if side == "forget":
                link(retain, folder / retain.name)
                link(retain.with_suffix(".json"), folder / retain.with_suffix(".json").name)


if __name__ == "__main__":
    cli.exit_with(main)
