"""Names in captions, curation, decoding and the two splits (traps 3, 5, 9 and 10)."""

import functools
import io
import shutil
import sys
import tarfile
import types
import unicodedata

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from slug import pool
from slug.data import curation, evaluation_sets, names, sources
from slug.data.images import decode
from slug.data.names import Matcher, _folded, plain_name
from slug.data.pairs import TarMembers, load_pairs, read_tar
from slug.data.splits import validation_mask
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
    assert Matcher([plain_name(name)]).find(caption) == ([plain_name(name)] if found else [])


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
    assert Matcher(["fish"], ["fish", "tropical fish", "fish cake", "tropical fish cake", "dog"]).find(caption) == found


def test_what_stands_around_a_hidden_name_does_not_join():
    assert Matcher(["santa claus"], ["santa claus hat"]).find("santa santa claus hat claus") == []


words = st.lists(st.sampled_from(["ab", "abc", "b", "c"]), max_size=8)
separator = st.sampled_from([" ", "_", "-", ", ", " / ", "__"])


def places(name, text):
    """Where the words of a name stand in a list of words: [(from, to)]."""
    return [(i, i + len(name)) for i in range(len(text) - len(name) + 1) if text[i : i + len(name)] == name]


@given(words.filter(bool), words, separator, st.booleans())
def test_matching_is_a_search_for_words(name, text, between, upper):
    caption = between.join(text)
    caption = caption.upper() if upper else caption
    assert Matcher([" ".join(name)]).find(caption) == ([" ".join(name)] if places(name, text) else [])


@given(words.filter(bool), st.lists(words.filter(bool), max_size=3), words)
def test_a_place_that_no_longer_name_covers_counts(name, known, text):
    longer = [k for k in known if len(k) > len(name) and places(name, k)]
    covers = sorted(p for k in longer for p in places(k, text))
    own = places(name, text)
    free = [(a, b) for a, b in own if not any(x < b and a < y for x, y in covers)]
    found = Matcher([" ".join(name)], [" ".join(k) for k in known]).find("_".join(text))
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
    return [(key, caption, image) for key, image, caption in read_tar(path)]


def curate(shards, out, *arguments):
    """Run a0_create_tar into `out`; returns the tars' folder."""
    where = ["--tar-dir", out / "tars", "--image-dir", out / "pictures", "--result-dir", out / "results"]
    source = ["--laion-dir", shards] if shards else []
    tiny.run("a0_create_tar", *source, *where, "--force", *arguments)
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


def test_names_of_any_script_are_found_and_written(tmp_path):
    tiny.write_shard(tmp_path / "s", 0, ["BEYONCE\u0301 live", "beyonce", "中 文", "Shaquille O'Neal"])
    tars = curate(tmp_path / "s", tmp_path, "--name", "Beyoncé", "中", "Shaquille O'Neal")
    assert {p.name for p in tars.glob("*.tar")} == {"Beyoncé.tar", "中.tar", "Shaquille_O-Neal.tar"}
    assert [c for _, c, _ in pairs_of(tars / "Beyoncé.tar")] == ["BEYONCE\u0301 live"]


def test_max_count_stops_the_scan(shards, tmp_path, monkeypatch):
    read = []
    find_rows = sources.find_rows
    monkeypatch.setattr(sources, "find_rows", lambda path, *a, **k: read.append(path.name) or find_rows(path, *a, **k))
    found = pairs_of(curate(shards, tmp_path, "--name", "Elon_Musk", "--max-count", 3) / "Elon_Musk.tar")
    assert [caption for _, caption, _ in found] == ["Elon Musk", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk"]
    assert read == ["00000.parquet"]


def test_a_second_run_gives_the_same_tar(shards, tmp_path):
    path = curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar"
    first = path.read_bytes()
    curate(shards, tmp_path, "--name", "Elon_Musk")
    assert path.read_bytes() == first and len(read_tar(path)) == 6


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


# --------------------------------------------------------------------------------------------------- curation at any size


def slow_fold(text):
    """The rule written out: NFKC and casefold, what is no letter or digit a space, words one space apart."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " " + " ".join("".join(c if c.isalnum() else " " for c in text).split()) + " "


@given(st.text())
def test_folding_is_the_rule_written_out(text):
    assert _folded(text) == slow_fold(text)


odd = st.text(st.sampled_from(list("aAkKsSſK \n_-.,2ß中é\u0301ﬁＡ")), max_size=10)


@given(st.lists(odd.filter(str.strip), min_size=1, max_size=4, unique=True), st.lists(odd, min_size=1, max_size=8))
def test_the_screen_lets_every_caption_with_a_name_pass(names, captions):
    matcher = Matcher(names)
    passed = pc.match_substring_regex(pa.array(captions), matcher.screen()).to_pylist()
    for caption, passes in zip(captions, passed, strict=True):
        plain = [n for n in matcher.names.values() if slow_fold(n).strip() and slow_fold(n) in slow_fold(caption)]
        assert matcher.find(caption) == plain
        assert passes or not plain
        assert bool(plain) == passes or not caption.isascii()


def some_metadata(folder, parts, rows=3000):
    """Metadata of captions from few words, some null; returns (paths, names, brute-force rows by path)."""
    rng = np.random.default_rng(0)
    words = "elon musk Elon_Musk jeff bezos Ann the a of dog Beyonce\u0301 BEYONCÉ tropical fish".split()
    names, known = ["Elon Musk", "jeff bezos", "Beyoncé", "fish"], ["tropical fish"]
    matcher, paths, plain = Matcher(names, known), [], {}
    for part in range(parts):
        captions = [" ".join(rng.choice(words, rng.integers(0, 6))) if rng.random() < 0.95 else None for _ in range(rows)]
        keys = [f"{part}-{i}" for i in range(rows)]
        status = rng.choice(["success", "failed"], rows).tolist()
        paths.append(folder / f"{part:05d}.parquet")
        pq.write_table(pa.table({"caption": captions, "key": keys, "status": status}), paths[-1], row_group_size=700)
        found = [matcher.find(c or "") for c in captions]
        plain[paths[-1]] = [
            (k, c, f) for k, c, f, s in zip(keys, captions, found, status, strict=True) if f and s == "success"
        ]
    return paths, matcher, plain


@pytest.mark.parametrize("screened", [True, False])
def test_rows_found_are_those_of_a_plain_scan(tmp_path, monkeypatch, screened):
    paths, matcher, plain = some_metadata(tmp_path, 2)
    monkeypatch.setattr(names, "MOST_SCREENED", 200 if screened else 0)
    assert (matcher.screen() is not None) == screened
    for path in paths:
        assert sources.Shard(path).rows(matcher, threads=True) == plain[path] and len(plain[path]) > 300


def test_two_processes_find_what_one_finds_in_the_same_order(tmp_path, shards, monkeypatch):
    paths, matcher, plain = some_metadata(tmp_path / ".", 5, rows=200)
    find = functools.partial(curation._rows, matcher=matcher, threads=False)
    units = [sources.Shard(p) for p in paths]
    assert list(pool.spread(find, units, workers=2)) == list(pool.spread(find, units)) == list(plain.values())
    alone = curate(shards, tmp_path / "alone", "--name", "Elon_Musk", "--workers", 1) / "Elon_Musk.tar"
    monkeypatch.setattr(sources, "WORTH_PROCESSES", 0)
    both = curate(shards, tmp_path / "both", "--name", "Elon_Musk", "--workers", 2) / "Elon_Musk.tar"
    assert alone.read_bytes() == both.read_bytes()


def count_pictures(colour):
    """How many of 300 pictures are decoded by workers."""
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return len(decode([held.getvalue()] * 300, transforms.PILToTensor(), workers=2)[1])


def test_processes_decode_by_workers_of_their_own():
    """Enough pictures for workers, within the processes that the study's runs are spread over."""
    assert list(pool.spread(count_pictures, ["red", "blue"], workers=2)) == [300, 300]


def in_place_of(monkeypatch, name, module, kind):
    """A distributor's backend is of this kind instead, installed or not."""
    backend, _, register, _ = pool.DISTRIBUTORS[name]
    registered = types.ModuleType(module)
    setattr(registered, register, lambda: joblib.register_parallel_backend(backend, kind))
    monkeypatch.setattr(joblib.parallel, "BACKENDS", dict(joblib.parallel.BACKENDS))
    for i in range(len(module.split("."))):
        parent = ".".join(module.split(".")[: i + 1])
        monkeypatch.setitem(sys.modules, parent, registered if parent == module else types.ModuleType(parent))


@pytest.mark.parametrize(("name", "module"), [("ray", "ray.util.joblib"), ("pyspark", "joblibspark")])
def test_a_cluster_gets_the_same_function_and_is_merged_in_order(monkeypatch, name, module):
    """Through joblib's registration of a backend, here one of threads in the cluster's place."""
    in_place_of(monkeypatch, name, module, type(joblib.parallel.BACKENDS["threading"]()))
    assert list(pool.spread(str, range(40), workers=2, distributor=name)) == [str(i) for i in range(40)]


def test_a_cluster_that_does_not_start_is_said_in_one_line(monkeypatch):
    class Down(joblib.parallel.ThreadingBackend):
        def configure(self, **_):
            raise Exception("The node timed out during startup")

    in_place_of(monkeypatch, "ray", "ray.util.joblib", Down)
    with pytest.raises(SlugError, match="processes of ray did not start: The node timed out"):
        list(pool.spread(str, range(4), workers=2, distributor="ray"))


def test_a_distributor_that_is_not_installed_is_named(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(SlugError, match="distributor ray is not installed"):
        curate(shards, tmp_path, "--name", "Elon_Musk", "--distributor", "ray")


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


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SlugError])
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_run_that_was_stopped_goes_on_where_it_was(shards, tmp_path, monkeypatch, stop, after):
    flags = ["--name", "Elon_Musk", "Jeff_Bezos"]
    whole = curate(shards, tmp_path / "whole", *flags)
    seen, usable = [], curation.usable

    def stopping(content):
        if len(seen) == after:
            raise stop("stopped")
        seen.append(content)
        return usable(content)

    monkeypatch.setattr(curation, "usable", stopping)
    with pytest.raises(stop):
        curate(shards, tmp_path, *flags)
    assert not (tmp_path / "tars" / "Elon_Musk.tar").exists()
    monkeypatch.setattr(curation, "usable", lambda content: seen.append(content) or usable(content))
    tars = curate(shards, tmp_path, *flags)
    assert len(seen) == 7  # Elon Musk's six and the broken one: none was looked at twice
    for name in ("Elon_Musk", "Jeff_Bezos"):
        assert (tars / f"{name}.tar").read_bytes() == (whole / f"{name}.tar").read_bytes()
    assert tiny.left_over(tmp_path) == []


def test_a_tar_from_elsewhere_is_kept_unless_it_is_cut_off(shards, tmp_path, capfd):
    tars = curate(shards, tmp_path, "--name", "Elon_Musk", "Jeff_Bezos")
    found, own = (tars / "Elon_Musk.tar").read_bytes(), tars / "Jeff_Bezos.tar"
    tiny.write_pairs(own, ["my own picture of jeff bezos"] * 3)
    mine = own.read_bytes()
    where = ["--tar-dir", tars, "--image-dir", tmp_path / "pictures", "--result-dir", tmp_path / "results"]
    given = ["--name", "Elon_Musk", "Jeff_Bezos", "--laion-dir", shards, *where]
    (tars / "Elon_Musk.tar").write_bytes(found[: len(found) // 2])
    capfd.readouterr()
    tiny.run("a0_create_tar", *given)
    assert own.read_bytes() == mine and (tars / "Elon_Musk.tar").read_bytes() == found
    assert f"Jeff_Bezos: kept {own}" in capfd.readouterr().out
    tiny.run("a0_create_tar", *given, "--force")
    assert own.read_bytes() != mine


def test_a_stopped_run_is_not_taken_for_another(shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(curation, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        curate(shards, tmp_path, "--name", "Elon_Musk")
    shutil.rmtree(shards)
    tiny.write_shard(shards, 0, ["elon musk"])
    out = ["--tar-dir", tmp_path / "tars", "--image-dir", tmp_path / "pictures", "--result-dir", tmp_path / "results"]
    tiny.run("a0_create_tar", "--laion-dir", shards, *out, "--name", "Elon_Musk")
    assert len(read_tar(tmp_path / "tars" / "Elon_Musk.tar")) == 1


def test_what_is_found_is_put_aside_and_not_held(shards, tmp_path, monkeypatch):
    whole = curate(shards, tmp_path / "whole", "--name", "Elon_Musk") / "Elon_Musk.tar"
    held = []
    add = curation.Spool.add
    monkeypatch.setattr(curation.Spool, "add", lambda self, *a: add(self, *a) or held.append(len(self.rows)))
    monkeypatch.setattr(curation, "SPOOL_BYTES", 0)
    again = curate(shards, tmp_path / "again", "--name", "Elon_Musk") / "Elon_Musk.tar"
    assert held == [1] * 6 and again.read_bytes() == whole.read_bytes()


# ----------------------------------------------------------------------------------------------------- duplicates, sources


def picture(seed, size=64, quality=95):
    """A smooth picture as JPEG."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_near_duplicates_of_a_name_are_left_out(tmp_path, capsys):
    folder = tmp_path / "s"
    contents = [picture(0), picture(1), picture(0, size=90, quality=60), picture(2), picture(1, quality=30), picture(3)]
    captions = ["Ann", "Ann", "Ann", "Bob", "Ann and Bob", "Ann"]
    tiny.write_shard(folder, 0, captions)
    members = {f"0000{i:05d}"[-9:] + ".jpg": c for i, c in enumerate(contents)}
    tiny.write_tar(folder / "00000.tar", members)
    flags = ["--name", "Ann", "Bob"]
    assert len(TarMembers(folder / "00000.tar")) == 6
    images = [image for _, image, _ in read_tar(curate(folder, tmp_path, *flags) / "Ann.tar")]
    assert images == [contents[i] for i in (0, 1, 2, 4, 5)]
    tars = curate(folder, tmp_path, *flags, "--near-duplicates", 4)
    assert [image for _, image, _ in read_tar(tars / "Ann.tar")] == [contents[i] for i in (0, 1, 5)]
    assert [image for _, image, _ in read_tar(tars / "Bob.tar")] == [contents[i] for i in (3, 4)]  # Ann's is not Bob's
    assert "Ann: 3 pairs (00000: 3), 0 broken pictures and 2 near-duplicates skipped" in capsys.readouterr().out
    few = curate(folder, tmp_path, *flags, "--near-duplicates", 4, "--max-count", 3)
    assert [image for _, image, _ in read_tar(few / "Ann.tar")] == [contents[i] for i in (0, 1, 5)]


def test_pairs_from_a_csv(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "mine").mkdir()
    for i in range(4):
        (tmp_path / "mine" / f"{i}.jpg").write_bytes(tiny.jpeg(i)[: 300 if i == 2 else None])
    lines = [
        "image,more,caption",
        '0.jpg,x,"Elon Musk, on\nstage"',
        "1.jpg,,a dog",
        "2.jpg,,elon musk",
        "gone.jpg,,elon musk",
    ]
    (tmp_path / "mine" / "a.csv").write_text("\n".join([*lines, "3.jpg,,ELON_MUSK", ""]))
    found = pairs_of(curate(None, tmp_path, "--csv", tmp_path / "mine" / "a.csv", "--name", "Elon_Musk") / "Elon_Musk.tar")
    assert [(c, p) for _, c, p in found] == [("Elon Musk, on\nstage", tiny.jpeg(0)), ("ELON_MUSK", tiny.jpeg(3))]
    assert "Elon_Musk: 2 pairs (a: 2), 2 broken" in capsys.readouterr().out


def test_pairs_from_an_image_folder(tmp_path):
    for name, count in (("Ann_Bo", 3), ("Cy_Do", 1)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "mine" / name / f"{i}.png").write_bytes(tiny.jpeg(i, kind="PNG"))
    (tmp_path / "mine" / "Ann_Bo" / "1.txt").write_text("a photo of Ann\n")
    (tmp_path / "mine" / "Ann_Bo" / "notes.md").write_text("not a picture")
    tars = curate(None, tmp_path, "--image-folder", tmp_path / "mine", "--name", "Ann_Bo", "Cy_Do")
    assert [c for _, c, _ in pairs_of(tars / "Ann_Bo.tar")] == ["Ann Bo", "a photo of Ann", "Ann Bo"]
    assert len(pairs_of(tars / "Cy_Do.tar")) == 1
    assert all(Image.open(io.BytesIO(image)).format == "JPEG" for _, _, image in pairs_of(tars / "Ann_Bo.tar"))
    alone = curate(None, tmp_path / "b", "--image-folder", tmp_path / "mine" / "Cy_Do", "--name", "Cy_Do")
    assert (alone / "Cy_Do.tar").read_bytes() == (tars / "Cy_Do.tar").read_bytes()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (["--csv", "gone.csv"], "CSV of pairs not found"),
        (["--csv", "bad.csv"], "is not a CSV with the columns image and caption"),
        (["--image-folder", "gone"], "image folder not found"),
        (["--image-folder", "empty"], "names Ann"),
        (["--image-folder", "empty", "--name", "Ann", "Bob"], "holds no folder Ann, Bob"),
        (["--download", "--metadata-dir", "gone"], "folder of LAION's metadata not found"),
    ],
    ids=str,
)
def test_sources_that_cannot_be_used(tmp_path, monkeypatch, capfd, source, said):
    (tmp_path / "bad.csv").write_text("picture,text\na.jpg,Ann\n")
    (tmp_path / "empty").mkdir()
    out = ["--tar-dir", tmp_path / "t", "--image-dir", tmp_path / "p", "--result-dir", tmp_path / "r"]
    source = [tmp_path / s if i == len(source) - 1 and "--name" not in source else s for i, s in enumerate(source)]
    source = [tmp_path / s if s == "empty" else s for s in source]
    named = [] if "--name" in source else ["--name", "Ann"]
    out += ["--named-dir", tmp_path / "n"]
    assert said in tiny.failure(monkeypatch, capfd, "a0_create_tar", *named, *source, *out)
    assert not any((tmp_path / "t").iterdir())


# --------------------------------------------------------------------------------------------------- pairs and decoding


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


def test_workers_do_not_change_what_is_decoded(tiny_clip):
    items = [tiny.jpeg(i, kind="PNG" if i % 3 else "JPEG") for i in range(300)]
    for i in (5, 120, 299):
        items[i] = items[i][:100]
    transform = tiny.load(tiny_clip).transform
    (images, kept), (again, same) = (decode(items, transform, workers=w) for w in (0, 2))
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
        read_tar(path)


# ----------------------------------------------------------------------------------------------------------- two halves


@st.composite
def picture_sets(draw):
    """Labels, groups and seen flags of an evaluation; a group belongs to one class."""
    groups = draw(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 4)), min_size=1, max_size=20))
    rows = [(label, seen, f"g{i}") for i, (label, seen, size) in enumerate(groups) for _ in range(size)]
    rows = draw(st.permutations(rows))
    labels, seen, names = zip(*rows, strict=True)
    empty = torch.empty(len(rows), 0)
    return evaluation_sets.PictureSet(empty, torch.tensor(labels), [], torch.zeros(4), list(names), torch.tensor(seen), 0)


@given(picture_sets(), st.integers(0, 100))
def test_no_group_is_in_both_halves_and_both_get_their_share(pictures, seed):
    select = validation_mask(pictures, seed)
    assert select.dtype == torch.bool and torch.equal(select, validation_mask(pictures, seed))
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
        evaluation_sets.load_celeba(tiny_world / "celeba", transform),
        evaluation_sets.load_imagenet(tiny_world / "ImageNet" / "val", transform),
    ):
        select = validation_mask(pictures, 0)
        for side in (select, ~select):
            assert set(pictures.labels[side].tolist()) == set(range(len(pictures.names)))
        inside, outside = (
            {g for g, s in zip(pictures.groups, select.tolist(), strict=True) if s == split} for split in (True, False)
        )
        assert not inside & outside and len(inside) > 10
        assert not torch.equal(select, validation_mask(pictures, 1))


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
    found = evaluation_sets.load_celeba(tmp_path, transform)
    assert found.names == ["Ann Bo", "Cy Do", "Ed Fox"] and found.labels.tolist() == [0, 0, 2]
    assert len(set(found.groups)) == 3 and found.seen.all()  # without groups.csv each picture is its own group
    assert evaluation_sets.load_celeba(tmp_path, transform, per_class=1).labels.tolist() == [0, 2]


def test_imagenet_share_is_drawn_by_seed(tiny_world, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    val = tiny_world / "ImageNet" / "val"
    whole = evaluation_sets.load_imagenet(val, transform)
    some, again, other = (evaluation_sets.load_imagenet(val, transform, share=0.3, seed=s) for s in (0, 0, 1))
    assert len(whole.labels) == 100 and len(some.labels) == 30
    assert torch.equal(some.images, again.images) and some.groups == again.groups and some.groups != other.groups
    assert some.names == whole.names
