"""Import this before open_clip, timm or torchvision: it lets a CUDA build of torchvision import beside a CPU build of torch.

PyPI's torchvision is a CUDA build whose compiled operators do not load on CPU torch; its import then dies because two
operator schemas it registers fake kernels for are missing. Declaring them is enough: nothing here calls the operators.
"""

import importlib.util

import torch


def declare_missing_operators():
    """Declare torchvision::nms and ::qnms where torchvision's compiled library cannot load. Returns the library or None."""
    if torch.version.cuda or importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


LIBRARY = declare_missing_operators()  # kept alive: a library that is collected takes its schemas along
