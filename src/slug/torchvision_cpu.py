"""Import this before open_clip, timm or torchvision: it lets a CUDA build of torchvision run with a CPU build of torch.

PyPI's torchvision is a CUDA build whose compiled operators do not load with CPU torch. Its import then fails, because it
registers fake kernels for two operators whose schemas are missing. Declaring the schemas is enough: nothing calls them here.
"""

import importlib.util

import torch


def declare_missing_operators() -> torch.library.Library | None:
    """Declare torchvision::nms and ::qnms if torchvision's compiled library cannot load. Returns the library, if any."""
    if torch.version.cuda or importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


LIBRARY = declare_missing_operators()  # kept alive: collecting the library would remove its schemas
