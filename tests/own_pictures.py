"""Someone's own pictures: those of a name of the tiny world, copied out of its evaluation into a plain folder."""

import shutil

from PIL import Image

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
