"""Device, seeds and memory of this process."""

import contextlib
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

from slug.errors import SlugError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def settle(device: str, seed: int) -> torch.device:
    """Seed everything and return the torch device; `auto` takes CUDA where there is one. SlugError if it is not there."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as err:
        first = str(err).splitlines()[0]
        raise SlugError(f"device {device!r} cannot be used ({first}); try --device cpu") from err


def free_memory(device: torch.device) -> int:
    """Free bytes of a CUDA device, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo") as f:
        return 1024 * next(int(line.split()[1]) for line in f if line.startswith("MemAvailable"))
    return 4 * 2**30  # off Linux: a guess that suits a laptop


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the peak anew; off Linux and CUDA it stays the process's peak since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB since `reset_peak_memory`: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
