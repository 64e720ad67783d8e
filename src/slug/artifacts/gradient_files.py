"""Gradient files: where they are, what they were made of, and the stage that writes them."""

import os
import time

import torch

from slug import cli, distributed, files
from slug.core import losses, preconditioning
from slug.core.gradients import BOTH, CONVENTION, compute
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs
from slug.errors import SlugError

METHODS = ("calc_grad", "calc_importance", "calc_grad_o", "calc_importance_o", "calc_grad_w", "calc_grad_ws")


SLUG = ("slug", "slug_w", "slug_ws")  # methods that step along calc_grad, calc_grad_w, calc_grad_ws, of pipelines


WHITENED = ("_w", "_ws")  # ends of methods; by _ws the other forget names' sets, too, are what must stay


STAGES = {
    BOTH: "src/clip/a1_compute_grad.py",
    "language": "src/sd/b1_compute_grad.py",
    "vision": "src/vlm/c1_unlearn_vlm.py",
}


def along(method):
    """The gradient, of METHODS, that a method of SLUG steps along."""
    return method.replace("slug", "calc_grad")


def kind_of(word):
    """The gradient, of METHODS, that a method needs; words of METHODS as they are."""
    return {"ssd": "calc_importance", "ssd_o": "calc_importance_o"}.get(word) or along(word).removesuffix("_rounds")


def folder(result_dir, name, tag):
    """results/grads/{name}_{tag}, or results/grads/retain_{tag} for the retain set."""
    return files.resolve(result_dir) / "grads" / f"{files.safe_name(name)}_{tag}"


def file_name(side, method):
    """`forget_grads.pt` or `train_grads.pt`, with `_o`, `_w`, `_ws` and `_importance` for the variants.

    Args:
        side: "forget" or "train" (the retain set).
        method: of METHODS.
    """
    end = next((e for e in ("_o", *WHITENED) if method.endswith(e) and side == "forget"), "")
    variant = ("_importance" if "importance" in method else "") + end
    return f"{side}_grads{variant}.pt"


def save(path, grads, fingerprint):
    """Write {name: tensor} as a plain dict, its fingerprint as JSON beside it (the file's own hash included)."""
    with files.replacing(path) as temporary:
        torch.save(grads, temporary)
    files.write_json(path.with_suffix(".json"), {**fingerprint, "sha256": files.file_hash(path)})


def is_valid(path, expected):
    """Whether a gradient file is there, whole, and has this fingerprint."""
    try:
        found = files.read_json(path.with_suffix(".json"))
    except SlugError:
        return False
    return (
        path.is_file() and all(found.get(k) == v for k, v in expected.items()) and found["sha256"] == files.file_hash(path)
    )


def load(path, expected, remedy):
    """Read a gradient file after checking its fingerprint.

    Args:
        path: the .pt file.
        expected: {key: value} that the fingerprint must have; what it says besides is not looked at.
        remedy: the command that makes the file, for the message.
    Raises:
        SlugError: missing, damaged, or stale (made from another model, other data or other options).
    """
    if not path.is_file():
        raise SlugError(f"no gradients at {path}; make them with: {remedy}")
    found = files.read_json(path.with_suffix(".json"))
    stale = [k for k, v in expected.items() if found.get(k) != v]
    if stale:
        raise SlugError(f"{path} is stale ({', '.join(stale)} differ from this run's); make it again with: {remedy}")
    grads = files.read_tensors(path, f"make it again with: {remedy}", mmap=True)
    if not all(torch.isfinite(g).all() for g in grads.values()):
        raise SlugError(f"{path} holds NaN or infinity; make it again with: {remedy}")
    return grads


def forget_tar(args, name):
    """The forget set's tar: --forget-data if given (one name only), else {tar-dir}/{name}.tar."""
    if args.forget_data and len(args.celeb_name) > 1:
        raise SlugError("--forget-data is the tar of ONE name; with several names use --tar-dir")
    return args.forget_data or f"{args.tar_dir}/{files.safe_name(name.replace(' ', '_'))}.tar"


def model_hash(clip):
    """Hash of all parameters: which model a gradient belongs to."""
    return files.tensor_hash(clip.parameters)


def fingerprint(model, tar, loss, batch_size, square, left_out, encoder=BOTH):
    """What a gradient file depends on; a file whose fingerprint differs is stale.

    Args:
        model: `model_hash`.
        tar: path of the pairs.
        left_out: names whose pairs are left out.
    """
    return {
        "model": model,
        "data": files.file_hash(tar),
        "loss_name": loss.__name__,
        "batch_size": batch_size,
        "square": square,
        "left_out": list(left_out),
        "encoder": encoder,
    }


def load_both(args, clip, name, model, method, batch_size, encoder=BOTH):
    """The forget and the retain gradient of a name, after checking that they belong to this model and these data.

    Args:
        args: flags of cli.add_model_flags and cli.add_data_flags.
        clip: models.Clip.
        model: `model_hash`.
        method: of METHODS.
        batch_size: of the gradient pass.
        encoder: see `compute`.
    Returns:
        (forget gradient, retain gradient, path of the forget tar, names whose pairs the retain set leaves out).
    Raises:
        SlugError: a file is missing, damaged or stale, or the retain gradient holds pairs of the name.
    """
    stage = STAGES[encoder]
    remedy = f"python {stage} --unlearn-method {method} --celeb-name {' '.join(args.celeb_name)}"
    square = "importance" in method
    where = folder(args.result_dir, name, clip.tag)
    tar = files.existing(forget_tar(args, name), "forget set", f"run src/clip/a0_create_tar.py --name {name}")
    loss = losses.FORGET["_o" if method.endswith("_o") else ""]
    train = where / file_name("train", method)
    retain_tar = files.existing(args.train_data, "retain set", "give --train-data")
    left_out = files.read_json(train.with_suffix(".json"))["left_out"] if train.is_file() else []
    if plain_name(name) not in left_out and train.is_file():
        raise SlugError(f"the retain gradient {train} holds pairs of {name}; make it again with: {remedy}")
    mark = fingerprint(model, tar, loss, batch_size, square, [], encoder)
    if method.endswith(WHITENED):
        mark |= whitening_mark(args, retain_tar, name, spared(args, clip, name, method))
    forget = load(where / file_name("forget", method), mark, remedy)
    mark = fingerprint(model, retain_tar, losses.contrastive, batch_size, square, left_out, encoder)
    return forget, load(train, mark, remedy), tar, left_out


def spared(args, clip, name, method):
    """Names whose forget sets must stay, too, by the file of a name's whitened gradient; none where there is no file."""
    path = folder(args.result_dir, name, clip.tag) / file_name("forget", method)
    return list(files.read_json(path.with_suffix(".json")).get("spared", ())) if path.is_file() else []


def sources(args, clip, name, method):
    """The sets that a name's gradients are of, {"retain_hash": ..., "forget_hashes": {name: ...}}: what was found along them
    is stale where they are others. SlugError where a set is missing."""
    names = [name, *(spared(args, clip, name, method) if method.endswith(WHITENED) else [])]
    tars = {n: files.existing(forget_tar(args, n), "forget set", "make it with the stage before") for n in names}
    retain = files.existing(args.train_data, "retain set", "give --train-data")
    return {"retain_hash": files.file_hash(retain), "forget_hashes": {n: files.file_hash(t) for n, t in tars.items()}}


def whitening_mark(args, retain_tar, name, others):
    """What the whitened gradient of a name depends on besides.

    Args:
        others: names whose forget sets must stay, too.
    """
    left_out = [plain_name(name)]
    mark = {"retain_data": files.file_hash(retain_tar), "retain_left_out": left_out, "damping": preconditioning.DAMPING}
    tars = {
        n: files.existing(forget_tar(args, n), "forget set", f"run src/clip/a0_create_tar.py --name {n}") for n in others
    }
    return mark | ({"spared": {n: files.file_hash(tar) for n, tar in tars.items()}} if others else {})


def seconds(args, clip, name, method, side="forget"):
    """Seconds that the gradient pass of a name took, by its file; on the retain side with what whitening took there."""
    where = folder(args.result_dir, name, clip.tag)
    spent = files.read_json((where / file_name(side, method)).with_suffix(".json"))["gradient_s"]
    if side == "train" and method.endswith(WHITENED):
        spent += files.read_json((where / file_name("forget", method)).with_suffix(".json"))["moments_s"]
    return spent


def add_flags(parser):
    """The flags of a gradient stage, beside those of cli.parser and cli.add_model_flags."""
    parser.add_argument(
        "--unlearn-method",
        type=kind_of,
        choices=METHODS,
        default="calc_grad",
        help="_o: contrastive forget loss; _w: whitened; _ws: whitened, and the other names' forget sets must stay, too",
    )
    parser.add_argument("--celeb-name", nargs="+", required=True, help="forget names; the retain set leaves all of them out")
    parser.add_argument("--forget-data", default="", help="tar of the forget set (one name only); else --tar-dir/{name}.tar")
    parser.add_argument("--tar-dir", default="data/tar_files", help="folder of the curated tars")
    parser.add_argument("--train-data", default="data/laion/laion400m/00000.tar", help="tar of the retain set")
    parser.add_argument(
        "--grad-checkpointing", action="store_true", help="compute activations twice: less memory, a third more time"
    )
    parser.add_argument("--force", action="store_true", help="compute again what is valid")


def _link(source, target):
    """Make `target` a relative link to `source`, replacing what stood there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        os.symlink(os.path.relpath(source, target.parent), temporary)


def write_all(args, clip, encoder=BOTH):
    """Write the forget gradient of every name and the one retain gradient, which is linked beside each; keep valid files.

    Args:
        args: flags of cli.add_model_flags and `add_flags`.
        encoder: see `compute`.
    """
    rank, _ = distributed.mine()
    clip.checkpointing = args.grad_checkpointing
    method = args.unlearn_method.removesuffix("_ws").removesuffix("_w")
    square = "importance" in method
    retain_tar = files.existing(args.train_data, "retain set", "give --train-data, a tar of pairs")
    jobs = []  # (folder, side, loss, tar, names to leave out)
    for name in dict.fromkeys(args.celeb_name):
        tar = files.existing(forget_tar(args, name), "forget set", f"run src/clip/a0_create_tar.py --name {name} first")
        loss = losses.FORGET["_o" if method.endswith("_o") else ""]
        jobs.append((folder(args.result_dir, name, clip.tag), "forget", loss, tar, []))
    # Pipelines and assistants may share a CLIP, and each takes its own encoder's, without its own names.
    retain_folder = folder(args.result_dir, "retain" if encoder == BOTH else f"retain-{encoder}", clip.tag)
    jobs.append((retain_folder, "train", losses.contrastive, retain_tar, sorted(map(plain_name, args.celeb_name))))

    identity = model_hash(clip)
    for where, side, loss, tar, left_out in jobs:
        path = where / file_name(side, method)
        mark = fingerprint(identity, tar, loss, args.batch_size, square, left_out, encoder)
        if not args.force and is_valid(path, mark):
            print(f"valid, kept: {path}")
            continue
        started = time.perf_counter()
        matcher = Matcher(left_out) if left_out else None
        pairs = load_pairs(tar, clip.transform, leave_out=matcher, workers=args.workers)
        decoded = time.perf_counter()
        how = {"batch_size": args.batch_size, "square": square, "encoder": encoder}
        grads, figures = compute(clip, pairs, loss, **how, desc=f"{side} {where.name}")
        spent = {"decode_s": decoded - started, "gradient_s": time.perf_counter() - decoded}
        if rank == 0:
            record = {**mark, **figures, **spent, "broken": pairs.broken, "convention": CONVENTION}
            save(path, grads, {**record, "settings": cli.settings(args), "versions": cli.versions()})
            print(f"{len(pairs.captions)} pairs, {pairs.broken} broken, loss {figures['loss']:.4f} -> {path}")
    if rank == 0:
        retain = retain_folder / file_name("train", method)
        for where, side, *_ in jobs:
            if side == "forget":
                _link(retain, where / retain.name)
                _link(retain.with_suffix(".json"), where / retain.with_suffix(".json").name)
    if args.unlearn_method.endswith(WHITENED):
        _whiten(args, clip, identity, jobs, encoder)


def _whiten(args, clip, identity, jobs, encoder):
    """Write the whitened gradient of every name, beside the gradient; keep valid files. Pairs that show the name are no part
    of what must stay; those of the others are, and by _ws the others' forget sets.

    Args:
        identity: `model_hash`.
        jobs: of `write_all`, that of the retain set last.
    """
    rank, _ = distributed.mine()
    *forgets, (_, _, _, retain_tar, _) = jobs
    names, wanted = list(dict.fromkeys(args.celeb_name)), []
    spare = args.unlearn_method.endswith("_ws")
    for name, (where, _, loss, tar, _) in zip(names, forgets, strict=True):
        path = where / file_name("forget", args.unlearn_method)
        plain = fingerprint(identity, tar, loss, args.batch_size, False, [], encoder)
        mark = plain | whitening_mark(args, retain_tar, name, [n for n in names if spare and n != name])
        if not args.force and is_valid(path, mark):
            print(f"valid, kept: {path}")
        else:
            wanted.append((name, path, plain, mark))
    if not wanted:
        return
    tars = {"": retain_tar} | ({n: tar for n, (_, _, _, tar, _) in zip(names, forgets, strict=True)} if spare else {})
    held = {n: load_pairs(tar, clip.transform, workers=args.workers) for n, tar in tars.items()}
    # Only pipelines have gradients of the text tower alone.
    how = {"batch_size": args.batch_size, "encoder": encoder, "padded": encoder == "language"}
    started = time.perf_counter()
    sums = {
        n: preconditioning.moments(clip, pairs, desc=f"inputs of {n or 'the retain set'}", **how)
        for n, pairs in held.items()
    }
    moments_s = time.perf_counter() - started
    for name, path, plain, mark in wanted:
        started = time.perf_counter()
        found = preconditioning.staying(clip, held, sums, name, **how)
        if rank > 0:
            continue
        source = path.with_name(file_name("forget", "calc_grad"))
        grads = preconditioning.whitened(load(source, plain, "this command"), found)
        about = files.read_json(source.with_suffix(".json")) | mark
        spent = {"gradient_s": about["gradient_s"] + time.perf_counter() - started, "moments_s": moments_s}
        spent |= {"convention": f"whitened {CONVENTION}", "not_whitened": sorted(set(grads) - set(found))}
        save(path, grads, about | spent)
        more = f" and of {len(mark['spared'])} forget sets" if spare else ""
        print(f"whitened by the retain set's pairs{more} that do not show {name} -> {path}")
