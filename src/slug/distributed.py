"""Several processes, as `torchrun --nproc-per-node=N` starts them: they share the work and the sums, and rank 0 writes."""

import os

import torch
import torch.distributed as dist


def start(device: torch.device) -> int:
    """Join the processes that torchrun started, if it did. Returns the rank of this process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return mine()[0]


def mine() -> tuple[int, int]:
    """(rank of this process, number of processes); (0, 1) for a single process."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def add_up(tensor: torch.Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    if mine()[1] > 1:
        dist.all_reduce(tensor)


def largest(number: int, device: torch.device) -> int:
    """The largest value of an integer over all processes."""
    value = torch.tensor(number, device=device)
    if mine()[1] > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)
