"""Someone's own pictures: whatever holds them is read, near-duplicates are one source image, and splits keep these whole."""

import own_pictures
import pytest
import tiny
import torch
from PIL import Image

from slug.data import photographs
from slug.data.pairs import Pairs
from slug.data.photographs import Photographs, Sample
from slug.errors import SlugError


def keys(found):
    return [s.key for s in found]


def pictures(folder, count=3, captions=True):
    for i in range(count):
        tiny.write_file(folder / f"{i}.jpg", tiny.jpeg(i))
        if captions:
            (folder / f"{i}.txt").write_text(f"caption {i}\n")
    return folder


# ------------------------------------------------------------------------------------------------------------ reading


def test_folders_tars_tables_files_and_pictures_in_memory_are_read(tmp_path):
    folder = pictures(tmp_path / "a")
    tiny.write_file(folder / "deeper" / "9.PNG", tiny.jpeg(9, kind="PNG"))
    tiny.write_pairs(tmp_path / "b.tar", ["one", "two"])
    (tmp_path / "c.csv").write_text("image,caption\na/0.jpg,first\na/1.jpg,\n")
    found = photographs.find(str(folder), "pictures")
    assert keys(found) == ["0.jpg", "1.jpg", "2.jpg", "deeper/9.PNG"]
    assert [s.caption for s in found] == ["caption 0", "caption 1", "caption 2", ""]
    assert [s.caption for s in photographs.find(str(tmp_path / "b.tar"), "pictures")] == ["one", "two"]
    assert [s.caption for s in photographs.find(tmp_path / "c.csv", "pictures")] == ["first", ""]
    assert [s.caption for s in photographs.find(str(folder / "1.jpg"), "pictures")] == ["caption 1"]
    memory = [Image.new("RGB", (4, 4)), str(folder / "2.jpg"), folder]
    assert keys(photographs.find(memory, "pictures")) == ["picture 0", "2.jpg", *keys(found)]


def test_a_folder_of_shards_holds_their_pairs(tmp_path):
    for n in range(2):
        tiny.write_pairs(tmp_path / "shards" / f"{n}.tar", [f"caption {n}"])
    assert keys(photographs.find(str(tmp_path / "shards"), "retain set")) == ["0/0", "1/0"]


def made(folder):
    """An empty folder."""
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: str(p / "nowhere"), "pictures not found"),
        (lambda p: str(pictures(p / "empty", 0).mkdir() or p / "empty"), "no picture found for the pictures"),
        (lambda p: [], "no picture found for the pictures in an empty list"),
        (lambda p: [made(p / "e"), str(made(p / "f"))], "no picture found for the pictures in .*/e, .*/f;"),
        (lambda p: [3], "int is neither a path nor a PIL picture"),
        (lambda p: str(p / "a.docx"), "give a folder of pictures"),
        (lambda p: str(p / "cut.tar"), "not a whole tar"),
        (lambda p: str(p / "no.csv"), "image"),
    ],
    ids="missing empty-folder empty-list empty-folders number document tar csv".split(),
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, make, said):
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "cut.tar").write_bytes(b"x" * 600)
    (tmp_path / "no.csv").write_text("file\n1.jpg\n")
    with pytest.raises(SlugError, match=said):
        photographs.find(make(tmp_path), "pictures")


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "a")
    monkeypatch.setattr(photographs.os, "access", lambda *_: False)  # a test as root may read everything
    with pytest.raises(SlugError, match="permission denied; check its permissions"):
        photographs.find(str(folder), "pictures")


def test_broken_pictures_are_counted_and_none_left_is_an_error(tmp_path, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    folder = pictures(tmp_path / "a")
    (folder / "1.jpg").write_bytes(b"no picture")
    pairs = photographs.decoded(photographs.find(str(folder), "pictures"), transform, "pictures")
    assert pairs.keys == ["0.jpg", "2.jpg"] and pairs.broken == 1 and pairs.captions == ["caption 0", "caption 2"]
    for name in ("0.jpg", "2.jpg"):
        (folder / name).write_bytes(b"no picture")
    with pytest.raises(SlugError, match="none of the 3 pictures of the pictures can be decoded"):
        photographs.decoded(photographs.find(str(folder), "pictures"), transform, "pictures")


# ------------------------------------------------------------------------------------------- source images and splits


def looked_at(samples, clip):
    pairs = photographs.decoded(samples, clip.transform, "pictures")
    with torch.no_grad():
        return pairs, clip.encode_image(pairs.images)


def test_copies_of_a_picture_are_one_source_image_and_other_pictures_are_not(tiny_world, taught_clip, tmp_path):
    clip = tiny.load(taught_clip)
    own_pictures.write(tiny_world, tmp_path / "own", count=12)
    first = sorted((tmp_path / "own").glob("*.jpg"))[0]
    own_pictures.nearly_the_same(first, tmp_path / "own" / "copies", 5)
    pairs, features = looked_at(photographs.find(str(tmp_path / "own"), "pictures"), clip)
    unrelated, _ = looked_at(photographs.find(own_pictures.retain(tiny_world), "retain set"), clip)
    with torch.no_grad():
        unrelated = photographs.mean_distance(clip.encode_image(unrelated.images))
    groups = photographs.source_images(pairs, features, unrelated)
    of_copies = {g for g, key in zip(groups, pairs.keys, strict=True) if key.startswith("copies") or key == first.name}
    assert of_copies == {first.name} and len(set(groups)) == 12


def test_a_model_that_finds_all_pictures_alike_still_tells_them_apart(tiny_world, tiny_clip, tmp_path):
    clip = tiny.load(tiny_clip)  # untrained: all cosines are close to 1
    own_pictures.write(tiny_world, tmp_path / "own", count=12)
    pairs, features = looked_at(photographs.find(str(tmp_path / "own"), "pictures"), clip)
    assert (features @ features.T).median() > 0.9
    assert len(set(photographs.source_images(pairs, features, photographs.mean_distance(features)))) >= 11


def test_the_mean_distance_is_that_of_all_pairs():
    x = torch.nn.functional.normalize(torch.randn(7, 5), dim=-1)
    assert photographs.mean_distance(x) == pytest.approx((1 - x @ x.T).mean().item(), abs=1e-5)


def test_hashes_stay_the_same_when_a_picture_is_made_lighter():
    image = torch.randint(0, 200, (1, 3, 64, 64), dtype=torch.uint8)
    assert photographs.hashes(image) == photographs.hashes(image + 30)


@pytest.mark.parametrize("count", [10, 11, 40, 97])
def test_parts_are_whole_source_images_of_the_shares(count):
    groups = [f"g{i % count}" for i in range(3 * count)]
    parts = photographs.split(groups, seed=1)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(3 * count))
    held = {part: {groups[i] for i in rows.tolist()} for part, rows in parts.items()}
    assert len(held["validation"]) == len(held["test"]) == round(0.3 * count)
    assert not held["validation"] & held["test"] and not held["gradient"] & (held["validation"] | held["test"])
    again = photographs.split(groups, seed=1)
    assert all(torch.equal(parts[p], again[p]) for p in parts)
    assert any(not torch.equal(parts[p], photographs.split(groups, seed=2)[p]) for p in parts)


# ------------------------------------------------------------------------------------------------------------- checks


def of_groups(groups):
    n = len(groups)
    pairs = Pairs(torch.zeros(n, 3, 2, 2, dtype=torch.uint8), ["x"] * n, [str(i) for i in range(n)], 0)
    return Photographs(pairs, torch.zeros(n, 2), groups)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a"] * 30, "all 30 pictures of Zoe are nearly the same picture; give at least 10"),
        (list("abc"), "Zoe has 3 source images, and at least 10 are needed"),
        (list("abcdefghi") + ["a"] * 5, r"9 source images \(14 pictures, of which up to 6 nearly repeat each other\)"),
        (["a"], "Zoe has 1 source image, and"),
    ],
    ids="copies three nine-of-fourteen one".split(),
)
def test_fewer_than_ten_source_images_are_refused_and_it_is_said_why(groups, said):
    with pytest.raises(SlugError, match=said):
        photographs.check_enough(of_groups(groups), "Zoe")
    photographs.check_enough(of_groups(list("abcdefghij")), "Zoe")


def test_captions_without_the_name_are_replaced_by_it_and_counted():
    pairs = Pairs(torch.zeros(3, 3, 2, 2), ["Elon-Musk speaks", "me at the beach", ""], list("abc"), 0)
    named, replaced = photographs.name_all(pairs, "elon_musk")
    assert named.captions == ["Elon-Musk speaks", "elon musk", "elon musk"] and replaced == 1


def samples(*captions):
    return [Sample(str(i), b"", c) for i, c in enumerate(captions)]


def test_the_retain_set_leaves_out_the_name_and_says_how_many():
    kept, left_out = photographs.retained(samples("", *["Zoe there"] * 3, *["a cat"] * 60), ["Zoe"], 0)
    assert len(kept) == 60 and left_out == {"no caption": 1, "name what is forgotten": 3}


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (["Zoe"] * 60 + ["a cat"] * 50, "60 of the 110 captions of the retain set name Zoe or Max"),
        (["max"] * 2, "2 of the 2 captions"),
        ([""] * 80, r"0 pairs with captions that do not name Zoe or Max \(80 pictures were found\)"),
        (["a cat"] * 39, "has 39 pairs"),
    ],
    ids="full-of-it nothing-else no-captions few".split(),
)
def test_a_retain_set_that_says_nothing_is_refused(captions, said):
    with pytest.raises(SlugError, match=said):
        photographs.retained(samples(*captions), ["Zoe", "Max"], 0)


def test_a_large_retain_set_is_drawn_from_by_the_seed(monkeypatch):
    monkeypatch.setattr(photographs, "MOST_RETAINED", 50)
    draws = [photographs.retained(samples(*["a cat"] * 60), ["Zoe"], seed) for seed in (0, 0, 1)]
    assert [len(kept) for kept, _ in draws] == [50] * 3 and draws[0][1]["beyond the most that are used"] == 10
    assert keys(draws[0][0]) == keys(draws[1][0]) != keys(draws[2][0])
