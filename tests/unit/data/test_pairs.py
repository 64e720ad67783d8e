"""Tars of pairs: their members, captions, broken pictures, source images and damage."""

import io
import json
import tarfile

import pytest
import tiny
import torch
from PIL import Image

from slug.data.names import Matcher
from slug.data.pairs import TarMembers, load_pairs, read_tar, source_images
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
