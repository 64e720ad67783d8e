"""A small world for the tests of the explorer: edits of an untrained CLIP, and labelled pictures."""

import tiny
import torch
from PIL import Image

from slug.artifacts import deltas

NAMES = ["ant", "alien", "baby", "bento box"]


def write_delta(folder, model, name, parameter, stem="m", seed=0):
    """A delta that moves one parameter as far as it is long."""
    p = model.parameters[parameter]
    change = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)) * p.float().std()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{name}.delta.safetensors"
    deltas.save(path, model, {parameter: change}, name=name, layer=parameter, step=1.0, metrics={})
    return path


def write(work, clip):
    """Write results/ with two edits of the open_clip model in the folder `clip`, and faces/ with a folder for each name."""
    model = tiny.load(clip)
    write_delta(work / "results", model, "ant", "visual.proj")
    write_delta(work / "results", model, "Alien", "text_projection", seed=1)
    images = tiny.pairs(40).images.permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(images):
        folder = work / "faces" / NAMES[i % 4].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return work
