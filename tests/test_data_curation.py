"""Names in captions, curation, decoding and the two halves (traps 3, 5, 9 and 10)."""

import io
import tarfile

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slug import curation, data
from slug.errors import SlugError

# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "caption", "found"),
    [
        ("Elon_Musk", "ELON MUSK on stage", True),
        ("Elon_Musk", "a talk by elon-musk.", True),
        ("Elon_Musk", "img_elon_musk_2019.jpg", True),
        ("Elon_Musk", "Elon   Musk", True),
        ("Elon_Musk", "Ｅｌｏｎ Ｍｕｓｋ", True),  # NFKC
        ("Elon_Musk", "Elon Musketeer", False),
        ("Elon_Musk", "melon musk", False),
        ("Elon_Musk", "Elon and Musk", False),
        ("Elon_Musk", "Elon Musk2", False),  # a digit is no boundary
        ("Elon_Musk", "", False),
        ("ant", "A giant plant", False),
        ("ant", "an ant, seen from above", True),
        ("Straße", "STRASSE", True),  # casefold
        ("beyoncé", "Beyonce\u0301 live", True),  # composed and decomposed
        ("beyoncé", "beyonce live", False),
        ("中", "中文", False),  # letters of any script
    ],
)
def test_names_are_found_as_whole_words_in_any_case(name, caption, found):
    assert data.Matcher([data.plain_name(name)]).find(caption) == ([data.plain_name(name)] if found else [])


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a tropical fish", []),
        ("TROPICAL_FISH, tropical fish", []),
        ("tropical fish tropical fish", []),
        ("fish and tropical fish", ["fish"]),
        ("tropical fish fish", ["fish"]),
        ("a fish cake on a plate", []),
        ("tropical fish cake fish", ["fish"]),
        ("fish of the tropical kind", ["fish"]),
    ],
)
def test_the_longest_name_wins(caption, found):
    assert data.Matcher(["fish"], ["fish", "tropical fish", "fish cake", "tropical fish cake", "dog"]).find(caption) == found


def test_what_stands_around_a_hidden_name_does_not_join():
    assert data.Matcher(["santa claus"], ["santa claus hat"]).find("santa santa claus hat claus") == []


words = st.lists(st.sampled_from(["ab", "abc", "b", "c"]), max_size=8)
separator = st.sampled_from([" ", "_", "-", ", ", " / ", "__"])


def places(name, text):
    """Where the words of a name stand in a list of words: [(from, to)]."""
    return [(i, i + len(name)) for i in range(len(text) - len(name) + 1) if text[i : i + len(name)] == name]


@given(words.filter(bool), words, separator, st.booleans())
def test_matching_is_a_search_for_words(name, text, between, upper):
    caption = between.join(text)
    caption = caption.upper() if upper else caption
    assert data.Matcher([" ".join(name)]).find(caption) == ([" ".join(name)] if places(name, text) else [])


@given(words.filter(bool), st.lists(words.filter(bool), max_size=3), words)
def test_a_place_that_no_longer_name_covers_counts(name, known, text):
    longer = [k for k in known if len(k) > len(name) and places(name, k)]
    covers = sorted(p for k in longer for p in places(k, text))
    own = places(name, text)
    free = [(a, b) for a, b in own if not any(x < b and a < y for x, y in covers)]
    found = data.Matcher([" ".join(name)], [" ".join(k) for k in known]).find("_".join(text))
    if free:
        assert found
    if not own or (len(covers) == 1 and all(covers[0][0] <= a and b <= covers[0][1] for a, b in own)):
        assert not found


# ------------------------------------------------------------------------------------------------- shards and curation


@pytest.fixture
def shards(tmp_path):
    """Two shards: 6 usable pairs of Elon Musk (4 and 2), one broken, one not downloaded; and a name beside it."""
    folder = tmp_path / "shards"
    captions = ["Elon Musk", "a dog", "elon-musk smiles", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk", "musk", "Elon musk"]
    tiny.write_shard(folder, 0, captions, broken=(2,))
    tiny.write_shard(folder, 1, ["elon musk 1", "Elon Musk 2", "elon musk 3"], failed=(1,))
    return folder


def pairs_of(path):
    """[(key, caption, image bytes)] of a tar."""
    return [(key, caption, image) for key, image, caption in data.read_tar(path)]


def curate(shards, out, *arguments):
    """Run a0_create_tar into `out`; returns the tars' folder."""
    where = ["--tar-dir", out / "tars", "--image-dir", out / "pictures", "--result-dir", out / "results"]
    source = ["--laion-dir", shards] if shards else []
    tiny.run("a0_create_tar", *source, *where, *arguments)
    assert list((out / "results" / "curation").glob("*")) == []  # nothing is kept of a run that has come to its end
    return out / "tars"


def test_curation_finds_every_usable_pair_and_keeps_its_caption(shards, tmp_path, capsys):
    tars = curate(shards, tmp_path, "--name", "Elon_Musk", "Jeff_Bezos")
    found = pairs_of(tars / "Elon_Musk.tar")
    assert [key for key, _, _ in found] == [f"Elon_Musk_{i}" for i in range(6)]
    wanted = ["Elon Musk", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk", "Elon musk", "elon musk 1", "elon musk 3"]
    assert [caption for _, caption, _ in found] == wanted  # as they were, and in shard and row order (trap 3)
    assert [image for _, _, image in found] == [tiny.jpeg(i) for i in (0, 3, 4, 6, 0, 2)]
    assert [caption for _, caption, _ in pairs_of(tars / "Jeff_Bezos.tar")] == ["Jeff Bezos and Elon Musk"]
    said = capsys.readouterr().out
    assert "Elon_Musk: 6 pairs (00000: 4, 00001: 2), 1 broken" in said and str(tars / "Elon_Musk.tar") in said
    folder = tmp_path / "pictures" / "Elon_Musk"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {f"{key}.jpg": image for key, _, image in found}


def test_max_count_stops_the_scan(shards, tmp_path, monkeypatch):
    read = []
    find_rows = curation.find_rows
    monkeypatch.setattr(curation, "find_rows", lambda path, *a, **k: read.append(path.name) or find_rows(path, *a, **k))
    found = pairs_of(curate(shards, tmp_path, "--name", "Elon_Musk", "--max-count", 3) / "Elon_Musk.tar")
    assert [caption for _, caption, _ in found] == ["Elon Musk", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk"]
    assert read == ["00000.parquet"]


def test_a_second_run_gives_the_same_tar(shards, tmp_path):
    path = curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar"
    first = path.read_bytes()
    curate(shards, tmp_path, "--name", "Elon_Musk")
    assert path.read_bytes() == first and len(data.read_tar(path)) == 6


def test_a_run_that_finds_nothing_leaves_the_good_tar(shards, tmp_path):
    path = curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar"
    first = path.read_bytes()
    other = tmp_path / "other"
    tiny.write_shard(other, 0, ["a dog"])
    with pytest.raises(SlugError, match=r"no caption .* names Elon_Musk"):
        curate(other, tmp_path, "--name", "Elon_Musk")
    assert path.read_bytes() == first and len(list((tmp_path / "pictures" / "Elon_Musk").iterdir())) == 6
    assert tiny.left_over(tmp_path) == []


def test_known_names_let_the_longest_win(tmp_path):
    tiny.write_shard(tmp_path / "s", 0, ["tropical fish", "a fish", "fish beside a tropical fish"])
    (tmp_path / "names.txt").write_text("fish\ntropical fish\n")
    tars = curate(tmp_path / "s", tmp_path, "--name", "fish", "--known-names", tmp_path / "names.txt")
    assert [caption for _, caption, _ in pairs_of(tars / "fish.tar")] == ["a fish", "fish beside a tropical fish"]
    tars = curate(tmp_path / "s", tmp_path, "--name", "fish")
    assert len(pairs_of(tars / "fish.tar")) == 3


def test_curation_of_the_world_agrees_with_a_plain_scan(tiny_world, tmp_path):
    tars = curate(tiny_world / "laion/laion400m", tmp_path, "--name", "Alien", "--known-names", tiny_world / "names.txt")
    found, wanted = [c for _, c, _ in pairs_of(tars / "Alien.tar")], []
    for path in sorted((tiny_world / "laion/laion400m").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        for name in (n for n in members if n.endswith(".txt")):
            caption = members[name].decode()
            said = caption.casefold().replace("alien monster", "")
            try:
                Image.open(io.BytesIO(members[name.replace(".txt", ".jpg")])).load()
            except OSError:
                continue
            if "alien" in said:
                wanted.append(caption)
    assert len(wanted) > 10 and found == wanted


# --------------------------------------------------------------------------------------------------- pairs and decoding


def test_retain_captions_are_unchanged_and_leave_the_names_out(tmp_path, tiny_clip):
    captions = ["a dog", "ELON_MUSK and a dog", "Jeff Bezos", "melon musk", "cat, dog"]
    members = {f"{i}.{kind}": c for i, t in enumerate(captions) for kind, c in (("jpg", tiny.jpeg(i)), ("txt", t.encode()))}
    tiny.write_tar(tmp_path / "00000.tar", members)
    transform = tiny.load(tiny_clip).transform
    assert data.load_pairs(tmp_path / "00000.tar", transform).captions == captions
    kept = data.load_pairs(tmp_path / "00000.tar", transform, leave_out=data.Matcher(["Elon Musk", "Jeff Bezos"]))
    assert kept.captions == ["a dog", "melon musk", "cat, dog"] and kept.keys == ["0", "3", "4"]
    wanted = [transform(Image.open(io.BytesIO(tiny.jpeg(i)))) for i in (0, 3, 4)]
    assert torch.equal(kept.images, torch.stack(wanted)) and kept.broken == 0


def test_broken_pictures_are_counted_and_keep_pictures_and_captions_matched(tmp_path, tiny_clip):
    members = {}
    for i in range(4):
        members |= {f"{i}.jpg": tiny.jpeg(i)[: 300 if i == 1 else None], f"{i}.txt": f"caption {i}".encode()}
    tiny.write_tar(tmp_path / "a.tar", members)
    transform = tiny.load(tiny_clip).transform
    found = data.load_pairs(tmp_path / "a.tar", transform)
    assert found.captions == ["caption 0", "caption 2", "caption 3"] and found.broken == 1
    assert torch.equal(found.images[1], transform(Image.open(io.BytesIO(tiny.jpeg(2)))))


def test_workers_do_not_change_what_is_decoded(tiny_clip):
    items = [tiny.jpeg(i, kind="PNG" if i % 3 else "JPEG") for i in range(300)]
    for i in (5, 120, 299):
        items[i] = items[i][:100]
    transform = tiny.load(tiny_clip).transform
    (images, kept), (again, same) = (data.decode(items, transform, workers=w) for w in (0, 2))
    assert kept.tolist() == same.tolist() == [i for i in range(300) if i not in (5, 120, 299)]
    assert torch.equal(images, again) and images.dtype == torch.uint8 and images.shape[1:] == (3, 64, 64)


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
        data.read_tar(path)


# ----------------------------------------------------------------------------------------------------------- two halves


@st.composite
def picture_sets(draw):
    """Labels, groups and seen flags of an evaluation; a group belongs to one class."""
    groups = draw(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 4)), min_size=1, max_size=20))
    rows = [(label, seen, f"g{i}") for i, (label, seen, size) in enumerate(groups) for _ in range(size)]
    rows = draw(st.permutations(rows))
    labels, seen, names = zip(*rows, strict=True)
    empty = torch.empty(len(rows), 0)
    return data.PictureSet(empty, torch.tensor(labels), [], torch.zeros(4), list(names), torch.tensor(seen), 0)


@given(picture_sets(), st.integers(0, 100))
def test_no_group_is_in_both_halves_and_both_get_their_share(pictures, seed):
    select = data.halves(pictures, seed)
    assert select.dtype == torch.bool and torch.equal(select, data.halves(pictures, seed))
    sides = {}
    for group, mine, label, seen in zip(
        pictures.groups, select.tolist(), pictures.labels.tolist(), pictures.seen.tolist(), strict=True
    ):
        sides.setdefault((label, seen), {}).setdefault(group, set()).add(mine)
    for groups in sides.values():
        assert all(len(side) == 1 for side in groups.values())
        chosen = sum(True in side for side in groups.values())
        assert chosen in ([0, 1] if len(groups) == 1 else [len(groups) // 2])


def test_halves_of_the_world_split_every_class_by_drawing(tiny_world, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    for pictures in (
        data.load_celeba(tiny_world / "celeba", transform),
        data.load_imagenet(tiny_world / "ImageNet" / "val", transform),
    ):
        select = data.halves(pictures, 0)
        for side in (select, ~select):
            assert set(pictures.labels[side].tolist()) == set(range(len(pictures.names)))
        inside, outside = (
            {g for g, s in zip(pictures.groups, select.tolist(), strict=True) if s == half} for half in (True, False)
        )
        assert not inside & outside and len(inside) > 10
        assert not torch.equal(select, data.halves(pictures, 1))


# ----------------------------------------------------------------------------------------------------- evaluation folders


def test_celeba_shows_frequent_identities_among_all_names(tmp_path, tiny_clip):
    (tmp_path / "img_align_celeba").mkdir()
    people = ["Ann_Bo", "Cy_Do", "Ann_Bo", "Ed_Fox"]
    for i in range(4):
        (tmp_path / "img_align_celeba" / f"{i}.jpg").write_bytes(tiny.jpeg(i))
    lines = ["4", "image_id identity_name", *(f"{i}.jpg {p}" for i, p in enumerate(people))]
    (tmp_path / "list_identity_celeba.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "frequent_celebs.txt").write_text("Ann_Bo\nEd_Fox\n")
    transform = tiny.load(tiny_clip).transform
    found = data.load_celeba(tmp_path, transform)
    assert found.names == ["Ann Bo", "Cy Do", "Ed Fox"] and found.labels.tolist() == [0, 0, 2]
    assert len(set(found.groups)) == 3 and found.seen.all()  # without groups.csv each picture is its own group
    assert data.load_celeba(tmp_path, transform, per_class=1).labels.tolist() == [0, 2]


def test_imagenet_share_is_drawn_by_seed(tiny_world, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    val = tiny_world / "ImageNet" / "val"
    whole = data.load_imagenet(val, transform)
    some, again, other = (data.load_imagenet(val, transform, share=0.3, seed=s) for s in (0, 0, 1))
    assert len(whole.labels) == 100 and len(some.labels) == 30
    assert torch.equal(some.images, again.images) and some.groups == again.groups and some.groups != other.groups
    assert some.names == whole.names
