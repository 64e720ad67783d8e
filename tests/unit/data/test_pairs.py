"""Tars of pairs: their members, captions, broken pictures, source images and damage."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pytest
import tiny
import torch
from PIL import Image

from slug.data.names import Matcher
from slug.data.pairs import TarMembers, load_pairs, read_pairs, read_tar, source_images
from slug.errors import SlugError


@pytest.mark.parametrize("long_names", [False, True])
def test_tar_members_are_those_of_tarfile(tmp_path, long_names):
    path = tmp_path / "a.tar"
    sizes = [0, 1, 511, 512, 513, 5000]
    tiny.write_tar(path, {f"{'x' * 200 * long_names}{s}.jpg": bytes([i + 1]) * s for i, s in enumerate(sizes)})
    with tarfile.open(path) as tar, TarMembers(path) as members:
        assert {m.name: tar.extractfile(m).read() for m in tar} == dict(members)
        assert list(members) == tar.getnames() and [len(c) for c in members.values()] == sizes


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    tiny.write_tar(path, {"a.jpg": b"one", "b.jpg": b"two"})
    content = bytearray(path.read_bytes())
    content[1024] ^= 1  # the second member's name
    path.write_bytes(content)
    with pytest.raises(tarfile.ReadError, match="damaged"):
        TarMembers(path)


@pytest.mark.parametrize("cut", ["in a picture", "in a header", "between two members"])
def test_a_tar_that_was_cut_is_refused(tmp_path, cut):
    path = tmp_path / "a.tar"
    members = {f"{i}.{kind}": c for i in range(3) for kind, c in (("jpg", tiny.jpeg(i)), ("txt", b"a caption"))}
    tiny.write_tar(path, members)
    with tarfile.open(path) as tar:
        picture = tar.getmember("2.jpg")
    end = {
        "in a picture": picture.offset_data + 700,
        "in a header": picture.offset + 200,
        "between two members": picture.offset,
    }
    path.write_bytes(path.read_bytes()[: end[cut]])
    with pytest.raises(SlugError, match="not a whole tar"):
        read_tar(path)


def test_retain_captions_are_unchanged_and_leave_the_names_out(tmp_path, tiny_clip):
    captions = ["a dog", "ELON_MUSK and a dog", "Jeff Bezos", "melon musk", "cat, dog"]
    members = {f"{i}.{kind}": c for i, t in enumerate(captions) for kind, c in (("jpg", tiny.jpeg(i)), ("txt", t.encode()))}
    tiny.write_tar(tmp_path / "00000.tar", members)
    transform = tiny.load(tiny_clip).transform
    assert load_pairs(tmp_path / "00000.tar", transform).captions == captions
    kept = load_pairs(tmp_path / "00000.tar", transform, leave_out=Matcher(["Elon Musk", "Jeff Bezos"]))
    assert kept.captions == ["a dog", "melon musk", "cat, dog"] and kept.keys == ["0", "3", "4"]
    wanted = [transform(Image.open(io.BytesIO(tiny.jpeg(i)))) for i in (0, 3, 4)]
    assert torch.equal(kept.images, torch.stack(wanted)) and kept.broken == 0


def test_broken_pictures_are_counted_and_keep_pictures_and_captions_matched(tmp_path, tiny_clip):
    members = {}
    for i in range(4):
        members |= {f"{i}.jpg": tiny.jpeg(i)[: 300 if i == 1 else None], f"{i}.txt": f"caption {i}".encode()}
    tiny.write_tar(tmp_path / "a.tar", members)
    transform = tiny.load(tiny_clip).transform
    found = load_pairs(tmp_path / "a.tar", transform)
    assert found.captions == ["caption 0", "caption 2", "caption 3"] and found.broken == 1
    assert torch.equal(found.images[1], transform(Image.open(io.BytesIO(tiny.jpeg(2)))))


@pytest.fixture
def curated(tiny_world, tmp_path):
    """(a tar of pictures of both shards, {key: the source image that its sidecar file names}, folder of the shards)."""
    shards, members, wanted = tiny_world / "laion" / "laion400m", {}, {}
    for shard in sorted(shards.glob("*.tar")):
        with TarMembers(shard) as found:
            for name in [n for n in found if n.endswith(".jpg")][:40:10]:
                key = f"{len(wanted):09d}"
                members |= {f"{key}.jpg": found[name], f"{key}.txt": b"a caption"}
                wanted[key] = json.loads(found[name.replace(".jpg", ".json")])["drawing"]
    tiny.write_tar(tmp_path / "curated.tar", members)
    return tmp_path / "curated.tar", wanted, shards


def test_source_images_are_those_of_the_shards(curated):
    tar, wanted, shards = curated
    assert source_images(tar, shards) == wanted and len(set(wanted.values())) > 1


def test_a_picture_that_is_in_no_shard_is_named(curated, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlugError, match=r"the picture 000000000 of .* is in no shard"):
        source_images(curated[0], tmp_path / "empty")


# ------------------------------------------------------------------------------------------- tars as other tools make them


def captions_of(path):
    return [(key, caption) for key, _, caption in read_tar(path)]


def two(first, second, ends=("jpg", "txt")):
    """Members of two pairs whose names start so."""
    names = enumerate((first, second))
    return {f"{n}{end}": b"caption %d" % i if end == ends[1] else tiny.jpeg(i) for i, n in names for end in ends}


AS_OTHERS = {  # members -> keys of the pairs; captions are "caption 0" and "caption 1"
    "./": (two("./a.", "./b."), ["a", "b"]),
    "folders": (two("x/a.", "./y/a."), ["x/a", "y/a"]),
    "folder with a dot": (two("v1.0/a.", "v1.0/b."), ["v1.0/a", "v1.0/b"]),
    "upper case": (two("a.", "b.", ("JPG", "TXT")), ["a", "b"]),
    "jfif": (two("a.", "b.", ("jfif", "txt")), ["a", "b"]),
    "dots in keys": (two("22.05.", "23.05."), ["22.05", "23.05"]),
    "webdataset's several parts": (two("a.", "b.", ("input.jpg", "output.txt")), ["a", "b"]),
    "other files": (two("a.", "b.") | {"c.cls": b"1", "._a.jpg": b"\0", "__MACOSX/._a.txt": b""}, ["a", "b"]),
}


@pytest.mark.parametrize("case", AS_OTHERS)
def test_pairs_are_found_however_a_tool_names_them(tmp_path, case):
    members, keys = AS_OTHERS[case]
    tiny.write_tar(tmp_path / "a.tar", members)
    assert captions_of(tmp_path / "a.tar") == [(k, f"caption {i}") for i, k in enumerate(keys)]


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "AVIF"])
def test_every_format_that_pillow_reads_is_a_picture(tmp_path, tiny_clip, kind):
    tiny.write_tar(tmp_path / "a.tar", {f"a.{kind}": tiny.jpeg(0, kind=kind), "a.txt": b"one"})
    assert load_pairs(tmp_path / "a.tar", tiny.load(tiny_clip).transform).captions == ["one"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xef\xbb\xbfa mark", "a mark"), ("sixteen".encode("utf-16"), "sixteen"), (b"\xff broken", "\ufffd broken")],
)
def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path, content, said):
    tiny.write_tar(tmp_path / "a.tar", {"a.jpg": tiny.jpeg(0), "a.txt": content})
    assert captions_of(tmp_path / "a.tar") == [("a", said)]


def test_captions_stand_in_sidecar_files_where_there_are_no_texts(tmp_path, capsys):
    members = {f"{k}.jpg": tiny.jpeg(0) for k in "abcd"} | {"a.txt": b"text", "a.json": b'{"caption": "other"}'}
    members |= {"b.json": b'{"caption": "sidecar"}', "c.json": b'{"caption": null}', "d.json": b"{"}
    tiny.write_tar(tmp_path / "a.tar", members)
    assert captions_of(tmp_path / "a.tar") == [("a", "text"), ("b", "sidecar")]
    assert '2 pictures whose .json has no "caption"' in capsys.readouterr().out


def test_what_is_left_out_of_a_tar_is_counted_and_named_once(tmp_path, capsys):
    members = two("a.", "b.") | {"c.jpg": tiny.jpeg(0), "d.txt": b"", "e.cls": b"", "f.cls": b"", "a.png": tiny.jpeg(1)}
    tiny.write_tar(tmp_path / "a.tar", members)
    _, left_out = read_pairs(tmp_path / "a.tar")
    assert sorted(left_out.values()) == [1, 1, 1, 2] and left_out["files .cls"] == 2
    read_tar(tmp_path / "a.tar"), read_tar(tmp_path / "a.tar")
    assert capsys.readouterr().out.count("left out: 2 files .cls") == 1


def test_a_tar_of_whole_pairs_says_nothing(tmp_path, capsys):
    tiny.write_pairs(tmp_path / "a.tar", ["one", "two"])
    assert len(read_tar(tmp_path / "a.tar")) == 2 and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.jpg": b"x", "a.cls": b"3"}, r"1 files \.cls, 1 pictures without a caption \(\.txt or \.json"),
        ({"a.jpg": b"x", "b.txt": b"t"}, r"1 captions \(\.txt\) without a picture, 1 pictures without"),
        ({"a.heic": b"x", "a.txt": b"t"}, r"1 captions \(\.txt\) without a picture, 1 files \.heic"),
        ({}, "it has no pictures"),
    ],
)
def test_a_tar_without_pairs_says_why(tmp_path, members, said):
    tiny.write_tar(tmp_path / "a.tar", members)
    with pytest.raises(SlugError, match=f"no pair of picture and caption: .*{said}"):
        read_tar(tmp_path / "a.tar")


@pytest.mark.parametrize("long_names", [False, True])
@pytest.mark.parametrize("between", [0, 10240])
def test_tars_one_after_the_other_are_all_read(tmp_path, long_names, between):
    start = "x" * 150 if long_names else ""
    for name, first in (("a", 0), ("b", 3)):
        tiny.write_tar(tmp_path / f"{name}.tar", two(f"{start}{first}.", f"{start}{first + 1}."))
    a, b = ((tmp_path / f"{n}.tar").read_bytes() for n in "ab")
    (tmp_path / "c.tar").write_bytes(a + bytes(between) + b)
    assert [k.strip("x") for k, _ in captions_of(tmp_path / "c.tar")] == ["0", "1", "3", "4"]
    (tmp_path / "c.tar").write_bytes(a + b"something else".ljust(512) + b)
    with pytest.raises(SlugError, match="not a whole tar"):
        read_tar(tmp_path / "c.tar")


def test_a_name_that_two_of_these_tars_have_is_counted(tmp_path, capsys):
    tiny.write_tar(tmp_path / "a.tar", two("a.", "b."))
    (tmp_path / "c.tar").write_bytes((tmp_path / "a.tar").read_bytes() * 2)
    assert len(read_tar(tmp_path / "c.tar")) == 2
    assert "4 files whose name comes again later" in capsys.readouterr().out


def test_links_in_a_tar_are_counted(tmp_path):
    tiny.write_tar(tmp_path / "a.tar", two("a.", "b."))
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        link = tarfile.TarInfo("c.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        tar.addfile(link)
    samples, left_out = read_pairs(tmp_path / "a.tar")
    assert len(samples) == 2 and left_out == {"links, or special files": 1}


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_compressed_tar_is_named_as_one(tmp_path, pack, name):
    tiny.write_tar(tmp_path / "a.tar", two("a.", "b."))
    (tmp_path / "a.tar").write_bytes(pack((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(SlugError, match=f"compressed by {name}; unpack it"):
        read_tar(tmp_path / "a.tar")
