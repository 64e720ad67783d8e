"""What the demo's trainings share: learning-rate schedule, checkpoints, averaged weights, seeded generators."""

import itertools
import math
import time

import numpy as np
import torch

from slug import files, progress
from slug.errors import SlugError


class Part:
    """One training of a fixed number of steps, which resumes from its checkpoint.

    The learning rate falls along a cosine in each cycle.
    """

    def __init__(self, name, modules, rate, cycles, folder, sources, decay=0.01, settings=()):
        """
        Args:
            cycles: steps of each cycle, or of the only one.
            sources: code files that define the training; a checkpoint made by other code is refused.
            settings: numbers and strings on which it depends as well.

        Attributes:
            spent: CPU seconds of a thread, which other work on the machine does not change.

        Raises:
            SlugError: the checkpoint is damaged, or was made by another recipe.
        """
        self.name, self.modules, self.rate = name, modules, rate
        self.cycles = [cycles] if isinstance(cycles, int) else cycles
        self.path = folder / f"{name}.pt"
        parameters = [p for m in modules.values() for p in m.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)
        self.averages = {n: torch.optim.swa_utils.AveragedModel(m, avg_fn=self.average) for n, m in modules.items()}
        self.step, self.spent = 0, 0.0
        self.recipe = [rate, self.cycles, decay, *settings, *(files.file_hash(p) for p in (__file__, *sources))]
        if self.path.exists():
            state = files.read_tensors(self.path, "remove it to start the training again")
            if state.get("recipe") != self.recipe:
                raise SlugError(f"{self.path} was made by another recipe; remove it, or give another --checkpoint")
            for n, m in modules.items():
                m.load_state_dict(state["modules"][n])
                self.averages[n].load_state_dict(state["averages"][n])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent = state["step"], state["spent"]

    def average(self, old, new, count):
        """Exponential moving average whose window grows to 1,000 steps."""
        keep = min(0.999, (1 + float(count)) / (10 + float(count)))
        return old * keep + new * (1 - keep)

    def save(self):
        state = {
            "modules": {n: m.state_dict() for n, m in self.modules.items()},
            "averages": {n: m.state_dict() for n, m in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "recipe": self.recipe,
        }
        with files.replacing(self.path) as temporary:
            torch.save(state, temporary)

    def run(self, loss_of):
        """Take the remaining steps with the losses `loss_of(step)`. Returns the averaged modules in eval mode."""
        saved, begun = time.perf_counter(), time.process_time()
        before = self.spent
        ends = list(itertools.accumulate(self.cycles))
        bar = progress.bar(total=ends[-1], initial=self.step, unit="step", desc=self.name, mininterval=2)
        while self.step < ends[-1]:
            cycle = next(i for i, end in enumerate(ends) if self.step < end)
            done = 1 - (ends[cycle] - self.step) / self.cycles[cycle]
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * min(1, (self.step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
            loss = loss_of(self.step)
            self.optimizer.zero_grad()
            loss.backward()
            for module in self.modules.values():
                torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            self.optimizer.step()
            for n, m in self.modules.items():
                self.averages[n].update_parameters(m)
            self.step += 1
            self.spent = before + (time.process_time() - begun) / torch.get_num_threads()
            bar.update()
            if self.step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if time.perf_counter() - saved > 120 or self.step == ends[-1]:
                saved = time.perf_counter()
                self.save()
        bar.close()
        return {n: m.module.eval().requires_grad_(False) for n, m in self.averages.items()}


def generator(seed, part, step):
    """A torch.Generator that depends on (seed, part, step) only."""
    return torch.Generator().manual_seed(int(np.random.default_rng([seed, part, step]).integers(2**62)))
