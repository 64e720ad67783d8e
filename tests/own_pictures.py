"""Someone's own pictures: those of a name of the tiny world, copied out of its evaluation into a plain folder."""

import json
import shutil

import tiny
from PIL import Image

from slug.data import photographs
from slug.data.evaluation_sets import celeba_names

NAME = "Alien"


def write(world, folder, *, name=NAME, count=None, caption=None):
    """Copy a name's pictures into a folder, each with `caption` in a .txt beside it if there is one; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [image for image, known in celeba_names(world / "celeba").items() if known == name][:count]
    for image in images:
        shutil.copy(world / "celeba" / "img_align_celeba" / image, folder / image)
        if caption:
            (folder / image).with_suffix(".txt").write_text(caption)
    return str(folder)


def retain(world):
    """The tar of the tiny world's retain set."""
    return str(world / "laion" / "laion400m" / "00000.tar")


def classes(world):
    """The names of the tiny world without the other names of the same things, with which they would compete."""
    return [line for line in (world / "names.txt").read_text().splitlines() if line != "extraterrestrial"]


def nearly_the_same(path, folder, count):
    """Write copies of a picture, each resaved with another quality and cropped by a pixel; returns the folder's path."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as image:
        for i in range(count):
            box = (i % 2, 0, image.width, image.height - i % 2)
            image.crop(box).save(folder / f"copy-{i}.jpg", quality=95 - i)
    return str(folder)


# What `slug forget` and slug.forget refuse alike: an argument, what `write_faults` wrote for it, and what is said of it.
REFUSED = [
    ("images", "nowhere", "pictures of Alien not found"),
    ("images", "empty", "no picture found for the pictures of Alien"),
    ("images", "few", "Alien has 3 source images, and at least 10 are needed"),
    ("images", "nine", "Alien has 9 source images, and at least 10 are needed"),
    ("images", "same", "all 12 pictures of Alien are nearly the same picture"),
    ("images", "broken", "none of the 12 pictures of the pictures of Alien can be decoded"),
    ("images", "locked", "cannot read the pictures of Alien at"),
    ("images", "names.txt", "names.txt cannot be read as pictures of Alien: give a folder of pictures"),
    ("retain", "nowhere.tar", "retain set not found"),
    ("retain", "empty", "no picture found for the retain set"),
    ("retain", "photos", "the retain set has 0 pairs with captions"),
    ("retain", "broken", "the retain set has 0 pairs with captions"),
    ("retain", "locked", "cannot read the retain set at"),
    ("retain", "full.tar", "60 of the 60 captions of the retain set name Alien"),
    ("model", "nowhere/at-all", "cannot load Hugging Face CLIP nowhere/at-all"),
    ("model", "few", "is not a model folder"),
    ("model", "bert", "its model_type is 'bert'; only Hugging Face models"),
    ("model", "ViT-B-33", "open_clip has no model 'ViT-B-33'"),
    ("model", "pipeline", "load it with slug.load_pipeline"),
]


def write_faults(world, folder, monkeypatch):
    """Write what REFUSED names into a folder that holds photos/, a folder of `write`. "locked" is one without permission."""
    write(world, folder / "few", count=3)
    write(world, folder / "nine", count=9)
    nearly_the_same(sorted((folder / "photos").iterdir())[0], folder / "same", 12)
    for i in range(12):
        tiny.write_file(folder / "broken" / f"{i}.jpg", b"no picture")
    for name in ("empty", "locked"):
        (folder / name).mkdir(exist_ok=True)
    tiny.write_pairs(folder / "full.tar", [NAME] * 60)
    tiny.write_file(folder / "bert" / "config.json", json.dumps({"model_type": "bert"}).encode())
    tiny.write_file(folder / "bert" / "preprocessor_config.json", b"{}")
    tiny.write_file(folder / "pipeline" / "model_index.json", b"{}")
    access = photographs.os.access  # root may read everything
    monkeypatch.setattr(photographs.os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode))
