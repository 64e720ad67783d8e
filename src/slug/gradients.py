"""One gradient pass over a set of pairs at the original weights, and the files that carry it (paper, section 3).

The model is in eval mode and its weights do not change; the result is the mean over batches. Every batch's gradient is
taken by itself and added up in float64, so nothing leaks from one batch or one set into the next (trap 1) and the sum
does not depend on how batches are dealt to processes.
"""

import pickle

import torch
from tqdm import tqdm

from slug import data, files, losses, processes
from slug.errors import SlugError

CONVENTION = "gradient of the forget loss 1 - cos; a positive step ADDS it"


def batch_indices(n, batch_size, *, drop_last):
    """Index batches over n pairs in order. A set smaller than a batch is one batch; else drop_last drops a short end."""
    batches = list(torch.arange(n).split(batch_size))
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def _accumulate(clip, pairs, loss, batch_size, square, desc):
    """Weighted sum over this process's batches of gradients (or their squares), the sum of weights, and of losses."""
    drop_last = loss is losses.contrastive
    batches = batch_indices(len(pairs.captions), batch_size, drop_last=drop_last)
    rank, world = processes.mine()
    parameters = clip.parameters
    tokens = clip.tokenize(pairs.captions)
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    count = torch.zeros(3, dtype=torch.float64, device=clip.device)  # weight, weighted loss, pairs
    for rows in tqdm(batches[rank::world], desc=desc, unit="batch", disable=rank > 0):
        with torch.enable_grad():
            for p in parameters.values():
                p.requires_grad_(True)
            value = loss(clip.encode_image(pairs.images[rows]), clip.encode_text(tokens[rows]), clip.scale())
            grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        # The cosine loss is a mean over pairs: a short last batch weighs less. The contrastive one is a mean over batches.
        weight = 1 if drop_last else len(rows)
        for name, g in zip(parameters, grads, strict=True):
            if g is not None:
                total[name] += weight * (g.double() ** 2 if square else g.double())
        count += torch.tensor([weight, weight * value.item(), len(rows)], dtype=torch.float64, device=clip.device)
    for p in parameters.values():
        p.requires_grad_(False)
    for t in (*total.values(), count):
        processes.add_up(t)
    return total, count


def compute(clip, pairs, loss, *, batch_size=16, square=False, desc="gradient"):
    """Mean gradient of a loss over pairs at the model's present weights.

    Args:
        clip: models.Clip in float32.
        pairs: data.Pairs.
        loss: losses.contrastive or losses.cosine_embedding.
        batch_size: pairs a batch (the published runs: 16).
        square: mean of the squared per-batch gradients instead (SSD's importances).
    Returns:
        ({parameter name: float32 CPU tensor of the parameter's shape}, {"loss", "pairs", "batches"}).
    Raises:
        SlugError: a gradient is NaN or infinite.
    """
    total, (weight, value, n) = _accumulate(clip, pairs, loss, batch_size, square, desc)
    mean = {name: (t / weight).float().cpu() for name, t in total.items()}
    bad = next((name for name, g in mean.items() if not torch.isfinite(g).all()), None)
    if bad:
        raise SlugError(f"the gradient of {bad} is NaN or infinite; check the pictures and the model's weights")
    return mean, {"loss": (value / weight).item(), "pairs": int(n), "batch_size": batch_size}


# -------------------------------------------------------------------------------------------------------------- files


def folder(result_dir, name, tag):
    """results/grads/{name}_{tag}, or results/grads/retain_{tag} for the retain set."""
    return files.resolve(result_dir) / "grads" / f"{files.safe_name(name)}_{tag}"


def file_name(side, method):
    """`forget_grads.pt` or `train_grads.pt`, with `_o` and `_importance` for the variants.

    Args:
        side: "forget" or "train" (the retain set).
        method: calc_grad, calc_importance, and the same with `_o`.
    """
    variant = ("_importance" if "importance" in method else "") + (
        "_o" if method.endswith("_o") and side == "forget" else ""
    )
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
    try:
        grads = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as err:
        raise SlugError(f"{path} is damaged ({' '.join(str(err).split())[:120]}); make it again with: {remedy}") from err
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


def fingerprint(model, tar, loss, batch_size, square, left_out):
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
    }


def load_both(args, clip, name, model, method, batch_size):
    """The forget and the retain gradient of a name, after checking that they belong to this model and these data.

    Args:
        args: flags of cli.add_model_flags and cli.add_data_flags.
        clip: models.Clip.
        model: `model_hash`.
        method: calc_grad, calc_importance, and the same with `_o`.
        batch_size: of the gradient pass.
    Returns:
        (forget gradient, retain gradient, path of the forget tar, names whose pairs the retain set leaves out).
    Raises:
        SlugError: a file is missing, damaged or stale, or the retain gradient holds pairs of the name.
    """
    remedy = f"python src/clip/a1_compute_grad.py --unlearn-method {method} --celeb-name {' '.join(args.celeb_name)}"
    square = "importance" in method
    where = folder(args.result_dir, name, clip.tag)
    tar = files.existing(forget_tar(args, name), "forget set", f"run src/clip/a0_create_tar.py --name {name}")
    loss = losses.FORGET["_o" if method.endswith("_o") else ""]
    mark = fingerprint(model, tar, loss, batch_size, square, [])
    forget = load(where / file_name("forget", method), mark, remedy)
    train = where / file_name("train", method)
    retain_tar = files.existing(args.train_data, "retain set", "give --train-data")
    left_out = files.read_json(train.with_suffix(".json"))["left_out"] if train.is_file() else []
    if data.plain_name(name) not in left_out and train.is_file():
        raise SlugError(f"the retain gradient {train} holds pairs of {name}; make it again with: {remedy}")
    mark = fingerprint(model, retain_tar, losses.contrastive, batch_size, square, left_out)
    return forget, load(train, mark, remedy), tar, left_out


def seconds(args, clip, name, method, side="forget"):
    """Seconds that the gradient pass of a name took, by its file."""
    path = folder(args.result_dir, name, clip.tag) / file_name(side, method)
    return files.read_json(path.with_suffix(".json"))["gradient_s"]
