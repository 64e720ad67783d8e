"""The preconditioned gradients of names, beside their gradients (see core.preconditioning)."""

import time
from typing import Any

from slug import distributed, files
from slug.artifacts.gradient_files import CONVENTION, GradientFiles, is_valid, load, save
from slug.core import losses, preconditioning
from slug.core.variants import Variant
from slug.data.pairs import load_pairs


def write(of: GradientFiles, variant: Variant, workers: int, force: bool) -> None:
    """Write the preconditioned gradient of every name beside its gradient; keep valid files.

    Retained are the pairs that do not show the name; those of other names are among them, and with `spares_others` also
    the other names' forget sets.
    """
    spare, wanted = variant.spares_others, []
    for name in of.names:
        path = of.path(name, "forget", variant)
        plain = of.mark(of.tar(name), losses.forget(variant), variant)
        mark = plain | of.conditioned(name, [n for n in of.names if spare and n != name])
        if not force and is_valid(path, mark):
            print(f"{name}: valid, kept: {path}")
        else:
            wanted.append((name, path, plain, mark))
    if not wanted:
        return
    tars = {"": of.retain_tar} | ({n: of.tar(n) for n in of.names} if spare else {})
    held = {n: load_pairs(tar, of.clip.transform, workers=workers) for n, tar in tars.items()}
    # Only pipelines have gradients of the text tower alone, and they read what stands behind a text's end.
    how: dict[str, Any] = {"batch_size": of.batch_size, "encoder": of.encoder, "padded": of.encoder == "language"}
    started, sums = time.perf_counter(), {}
    for n, pairs in held.items():
        sums[n] = preconditioning.moments(of.clip, pairs, desc=f"{n or 'retain set'}: layer inputs", **how)
    moments_s = time.perf_counter() - started
    for name, path, plain, mark in wanted:
        started = time.perf_counter()
        found = preconditioning.retained(of.clip, held, sums, name, **how)
        if distributed.mine()[0] > 0:
            continue
        source = of.path(name, "forget", variant.plain)
        grads = preconditioning.preconditioned(load(source, plain, of.remedy(variant)), found)
        about = files.read_object(source.with_suffix(".json")) | mark
        spent = {"gradient_s": about["gradient_s"] + time.perf_counter() - started, "moments_s": moments_s}
        spent |= {"convention": f"preconditioned {CONVENTION}", "not_preconditioned": sorted(set(grads) - set(found))}
        save(path, grads, about | spent)
        more = f" and {len(mark['spared'])} forget sets" if spare and "spared" in mark else ""
        print(f"{name}: preconditioned by the retain set's pairs{more} that do not show it -> {path}")
