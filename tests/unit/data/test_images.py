"""Image files: which are pictures, and decoding, by workers and from the cache."""

import io
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from slug.data import images as images_module
from slug.data.images import by_batch, decode, decode_files, evenly_spaced


@pytest.fixture
def transform(tiny_clip):
    return tiny.load(tiny_clip).transform


def test_workers_do_not_change_what_is_decoded(transform):
    items = [tiny.jpeg(i, kind="PNG" if i % 3 else "JPEG") for i in range(300)]
    for i in (5, 120, 299):
        items[i] = items[i][:100]
    (images, kept), (again, same) = (decode(items, transform, workers=w) for w in (0, 2))
    assert kept.tolist() == same.tolist() == [i for i in range(300) if i not in (5, 120, 299)]
    assert torch.equal(images, again) and images.dtype == torch.uint8 and images.shape[1:] == (3, 64, 64)


def test_a_function_applied_by_batch_sees_every_image_that_can_be_decoded(transform):
    items = [tiny.jpeg(i) for i in range(70)]
    items[3] = b"no picture"
    found = by_batch(lambda images: {"mean": images.float().mean((1, 2, 3))}, items, transform)
    assert torch.equal(found["mean"], decode(items, transform)[0].float().mean((1, 2, 3))) and len(found["mean"]) == 69


@pytest.mark.parametrize(("count", "wanted"), [(2, [0, 5]), (3, [0, 3, 6]), (20, list(range(10)))])
def test_items_are_chosen_at_even_distances(count, wanted):
    assert evenly_spaced(range(10), count) == wanted


@pytest.fixture
def paths(tmp_path):
    """Three image files, with a broken one as the second and a missing one as the last."""
    found = [tmp_path / name for name in ("0.jpg", "broken.jpg", "1.jpg", "2.jpg", "missing.jpg")]
    for i in (0, 2, 3):
        found[i].write_bytes(tiny.jpeg(40 * i))
    found[1].write_bytes(b"no picture")
    return [str(path) for path in found]


def test_image_files_are_decoded_once(paths, tmp_path, monkeypatch, transform):
    images, kept = decode_files(paths, transform, cache=tmp_path / "cache")
    assert kept.tolist() == [0, 2, 3] and len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(images_module, "decode", None)
    again, same = decode_files(paths, transform, cache=tmp_path / "cache")
    assert torch.equal(again, images) and torch.equal(same, kept)


def test_a_changed_image_file_is_decoded_anew(paths, tmp_path, transform):
    images, _ = decode_files(paths, transform, cache=tmp_path / "cache")
    Path(paths[0]).write_bytes(tiny.jpeg(150, size=48))
    other, _ = decode_files(paths, transform, cache=tmp_path / "cache")
    assert not torch.equal(other[0], images[0]) and torch.equal(other[1:], images[1:])


def test_a_cache_file_that_was_cut_is_made_anew(paths, tmp_path, transform):
    images, _ = decode_files(paths, transform, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(decode_files(paths, transform, cache=tmp_path / "cache")[0], images)


# ------------------------------------------------------------------------------------------------------ odd pictures


def saved(image, kind="PNG", **how):
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_values_of_16_bits_become_8_bits(kind):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    grey = np.asarray(images_module.read(saved(Image.fromarray(ramp), kind)).convert("RGB"))
    assert np.abs(grey[..., 0].astype(int) - ramp / 257).max() < 1.01 and grey.min() == 0 and grey.max() == 255


@pytest.mark.parametrize(("size", "usable"), [((1, 65000), False), ((9000, 3), False), ((1, 190), True), ((300, 300), True)])
def test_a_picture_far_longer_than_wide_is_broken(size, usable):
    kept = decode([saved(Image.new("RGB", size))], lambda image: torch.zeros(3, 2, 2, dtype=torch.uint8))[1]
    assert len(kept) == usable


@pytest.mark.parametrize("error", [MemoryError, ZeroDivisionError, TypeError, KeyError, OverflowError])
def test_whatever_a_parser_raises_the_picture_is_broken(monkeypatch, error):
    def breaks(self):
        raise error("parser")

    content = saved(Image.new("RGB", (8, 8)))
    monkeypatch.setattr(Image.Image, "load", breaks)
    assert images_module.read(content) is None


def test_a_fault_of_the_transform_is_no_broken_picture():
    with pytest.raises(ZeroDivisionError):
        decode([saved(Image.new("RGB", (8, 8)))], lambda image: 1 / 0)


def test_pictures_of_a_folder_are_those_of_its_endings_and_the_rest_is_counted(tmp_path):
    names = ["b.JPG", "a.tiff", "sub/c.avif", "c.heic", "notes.md", "plain", "a.txt", ".keep", "sub/d.heic"]
    names += [".DS_Store", "._b.JPG", "Thumbs.db", "desktop.ini"]
    names += [f"{folder}/b.jpg" for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir")]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    found, left_out = images_module.listed(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a.tiff", "b.JPG", "sub/c.avif"]
    assert left_out == {"ending .heic": 2, "ending .md": 1, "no ending": 1, "linked folders": 1}
    found, left_out = images_module.listed(tmp_path, deep=False)
    assert [p.name for p in found] == ["a.tiff", "b.JPG"] and left_out["in a subfolder"] == 1
