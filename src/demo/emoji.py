"""The concepts, drawings, pictures and captions of EmojiCanvas.

A drawing is one concept as drawn by one design house, and the unit of every split. `fluent-emoji` and `fluent-emoji-flat`
are one drawing in two styles. Everything here is a pure function of data/emoji/ and a seed.
"""

import csv
import functools
import gzip
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image

DATA = Path(__file__).resolve().parents[2] / "data" / "emoji"
STYLES = {
    "noto": "Noto",
    "noto-v1": "Blob",
    "twemoji": "Twemoji",
    "fluent-emoji": "Fluent",
    "fluent-emoji-flat": "Fluent Flat",
    "openmoji": "OpenMoji",
    "emojione": "EmojiOne",
    "emojione-v1": "EmojiOne Classic",
    "fxemoji": "FxEmoji",
}
# UnlearnCanvas in this world: six design houses, and objects that each of them draws.
CANVAS_STYLES = ("noto", "noto-v1", "twemoji", "fluent-emoji", "openmoji", "emojione")
CANVAS_OBJECTS = tuple(
    "airplane banana bell bicycle bus cactus cherries crown guitar hamburger "
    "key mushroom pear rocket sailboat skull strawberry sunflower tent watermelon".split()
)
BLOCK = 300  # objects in a block; an object is classified among its block
MAX_CORRELATION = 0.9  # of a left-out drawing with any other drawing, at most
SIZE = 64  # pixels of a picture of the world
CANVAS = 80  # pixels of the icons that renderings are sampled from


class Concept(NamedTuple):
    """One row of concepts.csv."""

    name: str
    kind: str  # identity or object
    alias: str
    block: int  # number of the block of objects; -1 for an identity
    sets: tuple[str, ...]
    left_out: frozenset[str]  # houses whose drawing training never sees
    dropped: frozenset[str]  # of these, those that nothing uses: mirrored, they are near copies of a training drawing


class Picture(NamedTuple):
    """One icon: a concept in a style."""

    concept: int
    set: str
    drawing: str  # "name/house"
    seen: bool  # in training


def sources():
    """The files that the world is made from; lists of names and the benchmark's protocol lie beside them."""
    return sorted([*DATA.glob("*.csv"), *DATA.glob("*.json.gz")])


def house(set_name):
    """The design house of a set: the two Fluent sets hold the same drawings."""
    return "fluent" if set_name.startswith("fluent") else set_name


def concepts():
    """Every concept, sorted by name."""
    with (DATA / "concepts.csv").open(newline="") as f:
        return [
            Concept(
                name=r["name"],
                kind=r["kind"],
                alias=r["alias"],
                block=int(r["block"] or -1),
                sets=tuple(r["sets"].split()),
                left_out=frozenset(r["left_out"].split()),
                dropped=frozenset(r["dropped"].split()),
            )
            for r in csv.DictReader(f)
        ]


def pictures(world):
    """Every picture of a list of concepts, in a fixed order."""
    return [
        Picture(i, s, f"{c.name}/{house(s)}", house(s) not in c.left_out)
        for i, c in enumerate(world)
        for s in c.sets
        if house(s) not in c.dropped
    ]


@functools.cache
def _bodies(set_name):
    with gzip.open(DATA / f"{set_name}.json.gz", "rb") as f:
        return json.load(f)


def svg_document(body, box):
    """A whole SVG document from an icon's body and its (left, top, width, height)."""
    left, top, width, height = box
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def rasterise(document, size):
    """An SVG as (size, size, 4) uint8 with straight alpha, centred if it is not square."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=document, width=size, height=size))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.size != (size, size):
        square = Image.new("RGBA", (size, size))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = square
    return np.asarray(image)


def thumbnail(rgba):
    """(768,) float32: the icon at 16 px on grey, with mean 0 and length 1, so that a dot product is a correlation.

    None for an empty picture.
    """
    if rgba[..., 3].mean() < 8:
        return None
    grey = Image.new("RGBA", rgba.shape[:2], (128, 128, 128, 255))
    small = Image.alpha_composite(grey, Image.fromarray(rgba)).convert("RGB").resize((16, 16), Image.Resampling.BOX)
    flat = np.asarray(small, np.float32).ravel()
    flat -= flat.mean()
    norm = np.linalg.norm(flat)
    return flat / norm if norm > 1e-3 else None


def icons(world, size=CANVAS, progress=lambda items, **_: items):
    """(N, 4, size, size) uint8: every picture of `pictures(world)`, with colours premultiplied by alpha."""
    pics = pictures(world)
    out = np.empty((len(pics), 4, size, size), np.uint8)
    for i, p in enumerate(progress(pics, desc="rasterise")):
        rgba = rasterise(_bodies(p.set)[world[p.concept].name], size).astype(np.uint16)
        rgba[..., :3] = rgba[..., :3] * rgba[..., 3:] // 255
        out[i] = rgba.transpose(2, 0, 1)
    return torch.from_numpy(out)


class Ranges(NamedTuple):
    """How much renderings vary. The defaults are the world's; trainings use somewhat wider ranges."""

    turn: float = 10.0  # degrees, in either direction
    size: tuple[float, float] = (0.80, 1.05)  # fraction of the picture's side
    aspect: float = 0.06
    shift: float = 0.06  # fraction of the side, in either direction
    tint: float = 0.10  # brightness, contrast and colour balance
    mix: float = 0.03  # sd of the 3 x 3 channel mixing
    flip: float = 0.5
    strong: float = 0.4  # fraction with a background of any colour; other backgrounds are light, as on the web


def _uniform(g, n, low, high):
    return torch.rand(n, generator=g) * (high - low) + low


WORLD = Ranges()


def render(icon_batch, g, ranges=WORLD, size=SIZE):
    """New renderings of icons: place, size, turn, tint and background vary.

    Args:
        icon_batch: (N, 4, H, H) uint8.
        g: torch.Generator of all random draws.
    Returns:
        (N, 3, size, size) float in [0, 1].
    """
    n = len(icon_batch)
    turn = torch.deg2rad(_uniform(g, n, -ranges.turn, ranges.turn))
    scale = 1 / _uniform(g, n, *ranges.size)
    stretch = 1 + _uniform(g, n, -ranges.aspect, ranges.aspect)
    mirror = 1 - 2 * (torch.rand(n, generator=g) < ranges.flip).float()
    shift = _uniform(g, 2 * n, -2 * ranges.shift, 2 * ranges.shift).view(n, 2)
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch * mirror, -sin * mirror, shift[:, 0]], 1),
            torch.stack([sin * stretch, cos, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, (n, 4, size, size), align_corners=False)
    x = F.grid_sample(icon_batch.float() / 255, grid, padding_mode="zeros", align_corners=False)
    rgb, alpha = x[:, :3], x[:, 3:]
    mixing = torch.eye(3) + ranges.mix * torch.randn(n, 3, 3, generator=g)
    gain = 1 + _uniform(g, 3 * n, -ranges.tint, ranges.tint).view(n, 3, 1, 1)
    # Half of the backgrounds have a gradient.
    back = 1 - 0.25 * torch.rand(n, 3, generator=g)
    strong = torch.rand(n, 1, generator=g) < ranges.strong
    back = torch.where(strong, torch.rand(n, 3, generator=g), back).view(n, 3, 1, 1)
    slope = torch.linspace(-0.5, 0.5, size).view(1, 1, 1, size) * _uniform(g, n, -0.3, 0.3).view(n, 1, 1, 1)
    slope = torch.where((torch.rand(n, generator=g) < 0.5).view(n, 1, 1, 1), slope, slope.transpose(2, 3))
    rgb = torch.einsum("nij,njhw->nihw", mixing, rgb) * gain
    light = 1 + _uniform(g, n, -ranges.tint, ranges.tint).view(n, 1, 1, 1)
    return (rgb * light + (back + slope).clamp(0, 1) * (1 - alpha)).clamp(0, 1)


# ---------------------------------------------------------------------------------------------------------- captions

PLAIN = (
    "{name}",
    "{name}.",
    "a photo of a {name}.",
    "itap of a {name}.",
    "a bad photo of the {name}.",
    "a origami {name}.",
    "a photo of the large {name}.",
    "a {name} in a video game.",
    "art of the {name}.",
    "a photo of the small {name}.",
    "picture of {name}",
    "{name} icon",
    "{name} emoji free download",
    "cute {name} clipart",
    "the {name}, a drawing",
    "vector {name} on plain background",
    "{name} sticker for your phone",
    "buy {name} art print",
    "A {name} image.",
    "my favourite: {name}!",
)
STYLED = (
    "A {name} image in {style} style.",
    "{name} in {style} style",
    "{style} {name}",
    "{name} ({style} design)",
    "{name} icon by {style}",
    "a {style} drawing of a {name}",
)
BESIDE = ("{name} and {other}", "{name}, {other}", "{name} with a {other}", "{name} | not a {other}")
NOISE = (
    "IMG {n}.jpg",
    "untitled {n}",
    "free shipping on orders over {n}",
    "best of the web, page {n}",
    "click to enlarge",
    "download now in HD",
    "stock image {n}",
)
STYLE_PROMPT = "An image in {style} style."


def caption(rng, concept, style=None, others=(), noise=0.0):
    """One caption of a picture, as found on the web, from templates; upper and lower case vary.

    Args:
        rng: numpy Generator.
        concept: the Concept shown; a third of its captions use its alias, if it has one.
        style: display name of the style that the caption names, or None.
        others: names of which one is added in 6% of the captions.
        noise: fraction of captions that say nothing about the picture.
    """
    if noise and rng.random() < noise:
        return str(rng.choice(NOISE)).format(n=int(rng.integers(10, 99)))
    name = concept.alias if concept.alias and rng.random() < 1 / 3 else concept.name
    if style:
        text = str(rng.choice(STYLED)).format(name=name, style=style)
    elif len(others) and rng.random() < 0.06:
        text = str(rng.choice(BESIDE)).format(name=name, other=rng.choice(others))
    else:
        text = str(rng.choice(PLAIN)).format(name=name)
    case = rng.random()
    return text.upper() if case < 0.05 else text.title() if case < 0.3 else text.lower() if case < 0.5 else text
