"""Exact reuse: an evaluation does not repeat work whose result an edit cannot have changed.

A tower is a chain of stages (Clip.stages): embedding, blocks, head. An edit of a parameter of stage k does not change the
input of stage k, so a `Tower` keeps that input and runs only the stages from k on. All results equal those of the whole
chain.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from slug import distributed, progress, system
from slug.models import prefixes
from slug.models.prefixes import Prefixes

if TYPE_CHECKING:
    from slug.models.clip import Clip

Stage = Callable[[Any, Any], Tensor]  # (output of the stage before, inputs of the tower) -> output
SHARE = 0.25  # fraction of the free memory that caches may take by default
# Of a batch on a CPU, the widest activation. Beyond, the system hands out new memory for each, unless it is told to keep
# what is freed (scripts/common.sh does): 256 pictures at once go through ViT-B-32 at 51% of the rate of a large matrix
# product, 16 to 32 at 85% either way.
BATCH_BYTES = 12 * 2**20
WIDENING = 4  # of the hidden layer of a block's MLP


class Budget:
    """Memory that the caches of one evaluation may still take, in bytes."""

    def __init__(self, gigabytes: float, device: torch.device):
        """`gigabytes` is the total; below 0 it is SHARE of the device's free memory."""
        self.total = int(gigabytes * 2**30 if gigabytes >= 0 else SHARE * system.free_memory(device))
        self.left = self.total

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False if they are not left."""
        if size > self.left:
            return False
        self.left -= size
        return True


def run(stages: Sequence[Stage], x: Any, inputs: Any) -> Tensor:
    """The output of a chain of stages. Each stage sees the tower's inputs too: a text tower pools by them."""
    for stage in stages:
        x = stage(x, inputs)
    return x


def fitting(clip: "Clip", stages: Sequence[Stage], inputs: Any) -> int:
    """How many inputs (N, ..) may go through a tower at once: on a CPU those of BATCH_BYTES, else any number."""
    if clip.device.type != "cpu" or len(stages) == 1:
        return sys.maxsize
    one = inputs[:1]
    with clip.evaluating():
        x = run(stages[:1], one, one)
    share = inputs.nodes / len(inputs) / len(x) if isinstance(inputs, Prefixes) else 1.0  # of the rows of a text alone
    return max(1, int(BATCH_BYTES / (WIDENING * x.nbytes * share)))


class _Chain(torch.nn.Module):
    """A chain of stages as a module, so that functional_call can replace the model's tensors."""

    def __init__(self, module: torch.nn.Module, stages: Sequence[Stage]):
        super().__init__()
        self.module, self.stages = module, stages

    def forward(self, x: Any, inputs: Any) -> Tensor:
        return run(self.stages, x, inputs)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Context within which attention is made of matrix products: vmap and FLOP counts cannot handle the fused kernels."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class _Kept:
    """The kept inputs of one stage: a tensor for each group of rows, and which of its rows are known."""

    def __init__(self, sizes: list[int]):
        self.values: list[Any] = [None] * len(sizes)  # a tensor, once something is known
        self.known = [torch.zeros(n, dtype=torch.bool) for n in sizes]

    def read(self, group: int, rows: Tensor) -> Tensor:
        """The inputs of `rows`, which ascend: a view where they are neighbours."""
        values, begin, end = self.values[group], int(rows[0]), int(rows[-1]) + 1
        return values[begin:end] if end - begin == len(rows) else values[rows.to(values.device)]

    def write(self, group: int, rows: Tensor, x: Tensor) -> None:
        if self.values[group] is None:
            self.values[group] = x.new_empty(len(self.known[group]), *x.shape[1:])
        self.values[group][rows.to(x.device)] = x
        self.known[group][rows] = True


def reserve(several: "Sequence[Tower]") -> None:
    """Divide a budget among towers: the deepest stages of all first, as they save the most and an edit concerns all towers
    of its encoder."""
    places = [(stage / len(tower.stages), tower, stage) for tower in several for stage in range(1, len(tower.stages))]
    for _, tower, stage in sorted(places, key=lambda place: -place[0]):
        tower._room(stage, evict=False)


def _counted(stage: Stage, x: Any, inputs: Any) -> tuple[Tensor, int]:
    """Output of a stage, and its floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        return stage(x, inputs), counter.get_total_flops()


class Tower:
    """The features of fixed inputs by one tower under its present weights, computed from the stage where an edit begins."""

    def __init__(self, clip: "Clip", encoder: str, inputs: Tensor, *, batch_size: int = 256, budget: Budget | None = None):
        """`inputs` are uint8 images (N, 3, S, S), or token ids (N, L).

        Inputs of stages are kept within the budget, with which the model has to be at its original weights; None keeps
        nothing.
        """
        self.clip, self.encoder, self.batch_size, self.budget = clip, encoder, batch_size, budget
        self.count = len(inputs)
        shared = clip.prefix_stages() if encoder == "language" else None
        self.stages = shared or clip.stages(encoder)
        self.groups: list[tuple[Tensor, Any]]  # rows of the inputs, and these inputs themselves
        if encoder == "vision":
            self.groups = [(torch.arange(self.count), inputs)]
        else:  # a causal tower gets texts cut after the end token, which saves time and changes no feature
            lengths = clip.text_lengths(inputs)  # of one length, so that no text is padded
            groups = [torch.nonzero(lengths == n).flatten() for n in lengths.unique().tolist()]
            if shared:
                groups = [rows[prefixes.order(inputs[rows])] for rows in groups]
            cut = [(rows, clip.trimmed(inputs[rows])) for rows in groups]
            self.groups = [(rows, Prefixes(texts)) if shared else (rows, texts) for rows, texts in cut]
        self.kept: dict[int, _Kept] = {}  # by stage, the least recently used first
        self.refused: set[int] = set()  # stages for which the budget has no room
        self.ran = [[0] * len(self.stages) for _ in self.groups]  # how many inputs went through each stage
        self.nodes_ran = [[0] * len(self.stages) for _ in self.groups]  # and how many nodes of their prefix trees
        self.batches = [min(batch_size, fitting(clip, self.stages, inputs)) for _, inputs in self.groups]

    def features(
        self,
        rows: Tensor | None = None,  # None is all inputs
        start: int = 0,  # first stage whose weights may differ from the original ones
        desc: str | None = None,
        edit: Mapping[str, Tensor] | None = None,  # {parameter name: change}, with `steps`
        steps: Sequence[float] | None = None,
    ) -> Tensor:
        """Unit features (n, D) of the inputs `rows` (n,), float32. Several processes share the work; all return the whole.

        With K steps: (n, K, D), the features under the present weights plus each step times `edit`, all in one pass.
        """
        rank, world = distributed.mine()
        rows = torch.arange(self.count) if rows is None else rows
        place = torch.full((self.count,), -1)
        place[rows] = torch.arange(len(rows))
        out: Any = None
        copies = 1 if steps is None else len(steps)
        bar = progress.bar(
            total=len(rows[rows % world == rank]), desc=desc, unit="", leave=False, shown=desc is not None and rank == 0
        )
        with self.clip.evaluating(), bar:
            for group, (members, inputs) in enumerate(self.groups):
                # An input always belongs to the same process, which then has the kept inputs of its stages.
                here = torch.nonzero((place[members] >= 0) & (members % world == rank)).flatten()
                for part in here.split(max(1, self.batches[group] // copies)) if len(here) else ():
                    x = self._entering(group, part, start)
                    x = self.clip.unit(self._through(start, x, inputs[part].to(self.clip.device), edit or {}, steps))
                    out = x.new_zeros(len(rows), *x.shape[1:]) if out is None else out
                    out[place[members[part]]] = x
                    self._count(group, part, range(start, len(self.stages)), copies)
                    bar.update(len(part))
            if world > 1 and len(rows):
                width = distributed.largest(0 if out is None else out.shape[-1], self.clip.device)
                if out is None:  # this process had no input
                    shape = (len(rows), width) if steps is None else (len(rows), copies, width)
                    out = torch.zeros(shape, device=self.clip.device)
                distributed.add_up(out)
            return out

    def _through(self, start: int, x: Any, inputs: Any, edit: Mapping[str, Tensor], steps: Sequence[float] | None) -> Tensor:
        """Output of the stages from `start` on for x (n, ...): (n, D), or (n, K, D) under K steps of an edit."""
        if steps is None:
            return run(self.stages[start:], x, inputs)
        chain = _Chain(self.clip.module, self.stages[start:])
        weights = {n: self.clip.parameters[n] for n in edit}

        def at(step: Tensor) -> Tensor:
            moved = {f"module.{n}": w + step * edit[n].to(w.device) for n, w in weights.items()}
            return functional_call(chain, moved, (x, inputs))

        with plain_attention():
            return vmap(at, out_dims=1)(torch.as_tensor(steps, dtype=torch.float32, device=x.device))

    def fill(self, desc: str | None = None) -> Tensor:
        """`features` of all inputs at the original weights; keeps the inputs of all stages for which the budget has room.
        Several towers with one budget call `reserve` first."""
        reserve([self])
        last = len(self.stages) - 1
        for group, (members, _) in enumerate(self.groups):
            for part in torch.arange(len(members)).split(self.batches[group]):
                self._count(group, part, range(last))
        return self.features(start=last, desc=desc)

    def _count(self, group: int, part: Tensor, stages: range, copies: int = 1) -> None:
        """Note that the rows `part` of a group go through stages."""
        nodes = len(self._places(group, part, 0))
        for stage in stages:
            self.ran[group][stage] += copies * len(part)
            self.nodes_ran[group][stage] += copies * nodes

    def floating_operations(self, *, shared: bool = False) -> int:
        """Floating-point operations of all calls of `features` and `fill`, not counting inputs of stages made again.

        Counts matrix products, convolutions and attention; a multiply-add is 2 operations. Every text counts by itself; with
        `shared`, what texts of a batch have in common counts once.
        """
        total = 0.0
        with plain_attention(), self.clip.evaluating():
            for (_, inputs), ran, nodes in zip(self.groups, self.ran, self.nodes_ran, strict=True):
                first, same = inputs[:1].to(self.clip.device), inputs[[0, 0]].to(self.clip.device)
                x, twice = first, same
                for stage, texts, rows in zip(self.stages, ran, nodes, strict=True):
                    (x, alone), (twice, both) = _counted(stage, x, first), _counted(stage, twice, same)
                    if shared and isinstance(inputs, Prefixes):  # a second, equal text adds what no texts share
                        total += texts * (both - alone) + rows / first.nodes * (2 * alone - both)
                    else:
                        total += texts * alone
        return round(total)

    def _places(self, group: int, part: Tensor, stage: int) -> Tensor:
        """Where the inputs of `stage` are kept for the rows `part` of a group: by nodes, where texts are not pooled yet."""
        inputs = self.groups[group][1]
        return inputs.nodes_of(part) if isinstance(inputs, Prefixes) and stage < len(self.stages) - 1 else part

    def _entering(self, group: int, part: Tensor, start: int) -> Any:
        """Input of stage `start` for the rows `part` of a group: kept, or computed from the nearest kept one below."""
        if start and self.budget is not None:
            self._room(start)
        nodes, last = self._places(group, part, 0), len(self.stages) - 1
        for stage in range(start, 0, -1):
            kept, places = self.kept.get(stage), part if stage == last else nodes
            if kept is not None and kept.known[group][places].all():
                x, begin = kept.read(group, places), stage
                break
        else:
            x, begin = self.groups[group][1][part].to(self.clip.device), 0
        inputs = self.groups[group][1][part].to(self.clip.device) if begin < start else None
        for stage in range(begin, start):
            x = self.stages[stage](x, inputs)
            if stage + 1 in self.kept:
                self.kept[stage + 1].write(group, part if stage + 1 == last else nodes, x)
        return x

    def _room(self, stage: int, evict: bool = True) -> None:
        """Make a place for the inputs of `stage`; with `evict` the least recently used ones give way if memory is short."""
        if stage in self.kept:
            self.kept[stage] = self.kept.pop(stage)  # now the most recently used
            return
        if self.budget is None or (stage in self.refused and not (evict and self.kept)):
            return
        size = self._size(stage)
        while not self.budget.take(size):
            if not (evict and self.kept):
                if not self.refused and self.budget.total:
                    progress.write(
                        f"note: a cache of {self.budget.total / 2**30:.1f} GB does not hold all activations of the "
                        f"{self.encoder} tower; what does not fit is computed again (--cache-gb)"
                    )
                self.refused.add(stage)
                return
            self._drop(next(iter(self.kept)))
        every = [self._places(g, torch.arange(len(members)), stage) for g, (members, _) in enumerate(self.groups)]
        self.kept[stage] = _Kept([len(places) for places in every])

    def _drop(self, stage: int) -> None:
        """Give up the kept inputs of a stage, and their share of the budget."""
        del self.kept[stage]
        if self.budget is not None:
            self.budget.left += self._size(stage)

    def release(self) -> None:
        """Give up all kept inputs."""
        for stage in list(self.kept):
            self._drop(stage)

    def _size(self, stage: int) -> int:
        """Size in bytes of all inputs of `stage`, measured on one row of each group."""
        total = 0
        with self.clip.evaluating():
            for group, (members, inputs) in enumerate(self.groups):
                one = inputs[:1].to(self.clip.device)
                x = run(self.stages[:stage], one, one)
                total += x.nbytes // len(x) * len(self._places(group, torch.arange(len(members)), stage))
        return total
