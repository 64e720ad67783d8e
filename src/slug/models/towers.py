"""Exact reuse: work that an edit cannot have changed is not done again (DESIGN.md).

A tower is a chain of stages (models.Clip.stages): embedding, blocks, head. An edit of a tensor of stage k leaves alone what
enters stage k, so a `Tower` keeps that and runs the stages from k on. Every result equals that of the whole chain.
"""

import contextlib

import torch
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from slug import distributed, system

SHARE = 0.25  # of the free memory that the caches may take where the user does not say


class Budget:
    """Bytes that the caches of one evaluation may still take.

    Args:
        gigabytes: as --cache-gb says; negative takes SHARE of the device's free memory.
    """

    def __init__(self, gigabytes, device):
        self.total = int(gigabytes * 2**30 if gigabytes >= 0 else SHARE * system.free_memory(device))
        self.left = self.total

    def take(self, size):
        """Reserve `size` bytes; False where they are not there."""
        if size > self.left:
            return False
        self.left -= size
        return True


def run(stages, x, inputs):
    """The output of a chain of stages; every stage sees the inputs too (a text tower pools by them)."""
    for stage in stages:
        x = stage(x, inputs)
    return x


class _Chain(torch.nn.Module):
    """A chain of stages as a module, so that functional_call can put other tensors in place of the model's."""

    def __init__(self, module, stages):
        super().__init__()
        self.module, self.stages = module, stages

    def forward(self, x, inputs):
        return run(self.stages, x, inputs)


@contextlib.contextmanager
def plain_attention():
    """Within the context attention is made of plain products: the fused kernels have no rules for vmap or FLOP counts."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def length_groups(lengths):
    """[(rows)] of texts of one length each, so that none is padded; lengths is (N,) in tokens, the end token included."""
    return [torch.nonzero(lengths == n).flatten() for n in lengths.unique().tolist()]


class _Kept:
    """What enters one stage: a tensor a group, and which of its rows are filled."""

    def __init__(self, sizes):
        self.values = [None] * len(sizes)
        self.known = [torch.zeros(n, dtype=torch.bool) for n in sizes]

    def write(self, group, rows, x):
        if self.values[group] is None:
            self.values[group] = x.new_empty(len(self.known[group]), *x.shape[1:])
        self.values[group][rows] = x
        self.known[group][rows] = True


class Tower:
    """One tower over fixed inputs: their features under the present weights, from whichever stage an edit begins."""

    def __init__(self, clip, encoder, inputs, *, batch_size=256, budget=None):
        """
        Args:
            clip: models.Clip at its ORIGINAL weights, if there is a budget.
            encoder: "vision" or "language".
            inputs: uint8 pictures (N, 3, S, S), or token ids (N, L).
            budget: Budget of the kept activations; None keeps nothing.
        """
        self.clip, self.encoder, self.batch_size, self.budget = clip, encoder, batch_size, budget
        self.count = len(inputs)
        if encoder == "vision":
            self.groups = [(torch.arange(self.count), inputs)]
        else:  # cut after the end token where the tower is causal, which changes nothing but the time
            self.groups = [(rows, clip.trimmed(inputs[rows])) for rows in length_groups(clip.text_lengths(inputs))]
        self.stages = clip.stages(encoder)
        self.kept = {}  # {stage: _Kept}, the least lately used first
        self.refused = set()  # stages that the budget has no room for
        self.ran = [[0] * len(self.stages) for _ in self.groups]  # inputs that went through each stage, for the FLOP floor

    def features(self, rows=None, start=0, desc=None, edit=None, steps=None):
        """Unit features (n, D) of the inputs `rows` (n,), all where None; float32. Of several processes each computes its
        share, and all return the whole.

        Args:
            start: the first stage whose weights may differ from the original ones.
            edit, steps: {parameter name: tensor} and K numbers: the features under each of the present weights plus step
                times edit, (n, K, D), in one pass.
        """
        rank, world = distributed.mine()
        rows = torch.arange(self.count) if rows is None else rows
        place = torch.full((self.count,), -1)
        place[rows] = torch.arange(len(rows))
        out, copies = None, 1 if steps is None else len(steps)
        bar = tqdm(total=len(rows[rows % world == rank]), desc=desc, unit="", leave=False, disable=desc is None or rank > 0)
        with self.clip.evaluating(), bar:
            for group, (members, inputs) in enumerate(self.groups):
                # An input is always the same process's, which then has what enters its stages.
                here = torch.nonzero((place[members] >= 0) & (members % world == rank)).flatten()
                for part in here.split(max(1, self.batch_size // copies)) if len(here) else ():
                    x = self._entering(group, part, start)
                    x = self.clip.unit(self._through(start, x, inputs[part].to(self.clip.device), edit, steps))
                    out = x.new_zeros(len(rows), *x.shape[1:]) if out is None else out
                    out[place[members[part]]] = x
                    for stage in range(start, len(self.stages)):
                        self.ran[group][stage] += copies * len(part)
                    bar.update(len(part))
            if world > 1 and len(rows):
                width = distributed.largest(0 if out is None else out.shape[-1], self.clip.device)
                if out is None:  # no input was this process's
                    shape = (len(rows), width) if steps is None else (len(rows), copies, width)
                    out = torch.zeros(shape, device=self.clip.device)
                distributed.add_up(out)
        return out

    def _through(self, start, x, inputs, edit, steps):
        """What the stages from `start` on make of x (n, ...): (n, D), or under each of K steps of an edit (n, K, D)."""
        if steps is None:
            return run(self.stages[start:], x, inputs)
        chain = _Chain(self.clip.module, self.stages[start:])
        weights = {n: self.clip.parameters[n] for n in edit}

        def at(step):
            moved = {f"module.{n}": w + step * edit[n].to(w.device) for n, w in weights.items()}
            return functional_call(chain, moved, (x, inputs))

        with plain_attention():
            return vmap(at, out_dims=1)(torch.as_tensor(steps, dtype=torch.float32, device=x.device))

    def fill(self, desc=None):
        """`features` of all inputs at the original weights, keeping what enters every stage as far as the budget allows."""
        last = len(self.stages) - 1
        for stage in range(last, 0, -1):  # the deepest save the most
            self._room(stage, evict=False)
        for (members, _), ran in zip(self.groups, self.ran, strict=True):
            ran[:last] = [n + len(members) for n in ran[:last]]
        return self.features(start=last, desc=desc)

    def floating_operations(self):
        """Floating-point operations of what `features` and `fill` were asked for, without any repeated prefix: matrix
        products, convolutions and attention, 2 a multiply-add."""
        total = 0
        with plain_attention(), self.clip.evaluating():
            for (_, inputs), ran in zip(self.groups, self.ran, strict=True):
                x = one = inputs[:1].to(self.clip.device)
                for stage, count in zip(self.stages, ran, strict=True):
                    with FlopCounterMode(display=False) as counter:
                        x = stage(x, one)
                    total += count * counter.get_total_flops()
        return total

    def _entering(self, group, part, start):
        """What enters stage `start` for the rows `part` of a group: kept, or made from the nearest kept stage below."""
        inputs = self.groups[group][1]
        if start and self.budget is not None:
            self._room(start)
        for stage in range(start, 0, -1):
            kept = self.kept.get(stage)
            if kept is not None and kept.known[group][part].all():
                x, begin = kept.values[group][part.to(kept.values[group].device)], stage
                break
        else:
            x, begin = inputs[part].to(self.clip.device), 0
        for stage in range(begin, start):
            x = self.stages[stage](x, inputs[part].to(self.clip.device))
            if stage + 1 in self.kept:
                self.kept[stage + 1].write(group, part.to(x.device), x)
        return x

    def _room(self, stage, evict=True):
        """Have a place for what enters `stage`, for want of memory in exchange for the least lately used one."""
        if stage in self.kept:
            self.kept[stage] = self.kept.pop(stage)  # now the latest used
            return
        if stage in self.refused and not (evict and self.kept):
            return
        size = self._size(stage)
        while not self.budget.take(size):
            if not (evict and self.kept):
                if not self.refused and self.budget.total:
                    tqdm.write(
                        f"note: a cache of {self.budget.total / 2**30:.1f} GB does not hold all activations of the "
                        f"{self.encoder} tower; what does not fit is computed again (--cache-gb)"
                    )
                self.refused.add(stage)
                return
            oldest = next(iter(self.kept))
            del self.kept[oldest]
            self.budget.left += self._size(oldest)
        self.kept[stage] = _Kept([len(members) for members, _ in self.groups])

    def _size(self, stage):
        """Bytes of what enters a stage, by one row a group."""
        total = 0
        with self.clip.evaluating():
            for members, inputs in self.groups:
                x = run(self.stages[:stage], inputs[:1].to(self.clip.device), inputs[:1].to(self.clip.device))
                total += x.nbytes * len(members)
        return total
