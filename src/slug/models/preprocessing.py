"""The preprocessing that a Hugging Face folder describes (preprocessor_config.json), as steps of torchvision."""

import math
from collections.abc import Callable
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

from torchvision import transforms
from torchvision.transforms import InterpolationMode

from slug.errors import SlugError, brief

INTERPOLATION = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # of PIL's numbers


def of_processor(processor: Any, side: int, what: str) -> transforms.Compose:
    """Resize, crop, ToTensor and Normalize as a processor of transformers asks for them.

    Args:
        side: of the model's images; SlugError if the processor makes others, or does what these steps cannot.
    """

    def refuse(why: str) -> SlugError:
        return SlugError(f"the preprocessor_config.json of {what} {why}; correct it, or get the model's own")

    try:
        return _steps(processor, side, refuse)
    except (TypeError, ValueError, AttributeError, OverflowError) as err:
        raise refuse(f"holds a value of another kind ({brief(err)})") from err


def _steps(processor: Any, side: int, refuse: Callable[[str], SlugError]) -> transforms.Compose:
    size, crop = _plain(getattr(processor, "size", None)), _plain(getattr(processor, "crop_size", None))
    mode = getattr(processor, "resample", None)
    mode = INTERPOLATION.get(3 if mode is None else int(mode))
    if mode is None:
        raise refuse("names an unknown interpolation")
    steps: list[Any] = []
    made: tuple[Any, Any] | None = None
    if getattr(processor, "do_resize", True):
        if not ("shortest_edge" in size or {"height", "width"} <= size.keys()):
            raise refuse(f"gives no size to resize to (size {size})")
        made = None if "shortest_edge" in size else (size["height"], size["width"])
        steps.append(transforms.Resize(made or size["shortest_edge"], interpolation=InterpolationMode(mode)))
    if getattr(processor, "do_center_crop", False):
        made = (crop.get("height"), crop.get("width"))
        if made == (side, side):
            steps.append(transforms.CenterCrop(made))
    if made != (side, side):
        raise refuse(f"does not make images of {side} x {side} pixels, which the model takes")
    scale = 255 * float(getattr(processor, "rescale_factor", 1 / 255)) if getattr(processor, "do_rescale", True) else 255.0
    scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-6) else scale
    mean, std = [0.0] * 3, [1.0] * 3
    if getattr(processor, "do_normalize", True):
        mean, std = ([float(x) for x in v] for v in (processor.image_mean, processor.image_std))
    if len(mean) != 3 or len(std) != 3 or not scale > 0 or not all(s > 0 for s in std):
        raise refuse("has no usable mean and deviation of three channels")
    # ToTensor makes [0, 1]; another factor is the same as another mean and deviation.
    normal = transforms.Normalize(tuple(m / scale for m in mean), tuple(s / scale for s in std))
    return transforms.Compose([*steps, transforms.Lambda(_rgb), transforms.ToTensor(), normal])


def _plain(size: Any) -> dict[str, int]:
    """A size of a processor, without the kinds that it does not give."""
    return {k: v for k, v in dict(size or {}).items() if v is not None}


def _rgb(image: Any) -> Any:
    return image.convert("RGB")
