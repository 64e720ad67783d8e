"""EmojiCanvas: its concepts and splits, and the layouts the builder writes."""

import csv
import hashlib
import io
import json
import re
import tarfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from demo import build_world, draw_names, emoji
from slug import files
from slug.data.names import plain_name
from slug.errors import SlugError

COLUMNS = "url caption key status error_message width height original_width original_height".split()
COLUMNS += ["NSFW", "similarity", "LICENSE", "sha256"]


@pytest.fixture(scope="module")
def concepts():
    """{name: Concept} of the whole world."""
    return {c.name: c for c in emoji.concepts()}


def rows_of(path):
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def shards(world):
    """[(stem, parquet rows, {key: {kind: bytes}})] of the LAION-style folder, in order."""
    out = []
    for parquet in sorted((world / "laion" / "laion400m").glob("*.parquet")):
        members = {}
        with tarfile.open(parquet.with_suffix(".tar")) as tar:
            for member in tar:
                key, kind = member.name.split(".")
                members.setdefault(key, {})[kind] = tar.extractfile(member).read()
        out.append((parquet.stem, pq.read_table(parquet).to_pylist(), members))
    return out


def sidecars(world):
    """The .json of every pair of every shard."""
    return [json.loads(m["json"]) for _, _, members in shards(world) for m in members.values()]


def was_left_out(concepts, drawing):
    """Whether a drawing, "name/house", must not be in the training."""
    name, drawn_by = drawing.split("/")
    return drawn_by in concepts[name].left_out


def contents(folder):
    """{relative path: sha256} of every file."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def decodes(data):
    """The size of a picture's bytes, or None where it cannot be decoded whole."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.size
    except OSError:
        return None


# -------------------------------------------------------------------------------------------------------- concepts.csv


def test_identities_and_wide_objects_leave_three_drawings_out_and_every_other_object_one(concepts):
    found = Counter((c.kind, len(c.left_out)) for c in concepts.values())
    assert found.keys() == {("identity", 3), ("object", 3), ("object", 1)}
    assert found["identity", 3] == 100 and found["object", 3] == 40 and found["object", 1] >= 600
    seen = {}
    for p in emoji.pictures(list(concepts.values())):
        seen.setdefault(p.concept, {})[p.drawing] = p.seen
    for i, c in enumerate(concepts.values()):
        assert c.left_out <= {emoji.house(s) for s in c.sets}, f"{c.name}: a house that does not draw it is left out"
        assert sum(seen[i].values()) >= 3, f"{c.name}: too few drawings to learn it from"
        assert sum(not s for s in seen[i].values()) == len(c.left_out - c.dropped)


def test_blocks_of_objects_are_full_and_the_first_holds_the_wide_ones(concepts):
    blocks = Counter(c.block for c in concepts.values())
    assert blocks.pop(-1) == 100  # identities are in no block
    assert sorted(blocks) == list(range(len(blocks))) and all(blocks[b] == emoji.BLOCK for b in sorted(blocks)[:-1])
    assert {c.block for c in concepts.values() if build_world.is_wide(c)} == {0}


def test_no_two_concepts_share_a_name_or_an_alias(concepts):
    said = [n for c in emoji.concepts() for n in (c.name, c.alias) if n]
    plain = [" ".join(re.findall(r"\w+", n.casefold())) for n in said]
    assert [n for n, count in Counter(plain).items() if count > 1] == []
    assert all(n == n.strip() and "_" not in n and "/" not in n for n in said)  # names become folder names


def test_no_left_out_drawing_is_like_a_drawing_of_the_training(concepts):
    pictures = emoji.pictures(list(concepts.values()))
    icons = emoji.icons(list(concepts.values()), size=32).float()
    grey = icons[:, :3] + 128 * (1 - icons[:, 3:] / 255)  # colours are premultiplied
    small = torch.nn.functional.avg_pool2d(grey, 2).flatten(1)
    unit = torch.nn.functional.normalize(small - small.mean(1, keepdim=True))
    seen = torch.tensor([p.seen for p in pictures])
    mirrored = unit[seen].view(-1, 3, 16, 16).flip(3).flatten(1)  # training and renderings flip pictures
    correlation, nearest = torch.maximum(unit[~seen] @ unit[seen].T, unit[~seen] @ mirrored.T).max(1)
    worst = int(correlation.argmax())
    left_out, trained = [p for p in pictures if not p.seen], [p for p in pictures if p.seen]
    print(
        f"highest correlation of a left-out drawing with one of the training: {correlation[worst]:.4f} "
        f"({left_out[worst].drawing} with {trained[nearest[worst]].drawing})"
    )
    assert correlation[worst] <= emoji.MAX_CORRELATION


# --------------------------------------------------------------------------------------------------------------- LAION


def test_shards_are_those_of_img2dataset(tiny_world):
    made = json.loads((tiny_world / "world.json").read_text())["laion"]
    found = shards(tiny_world)
    assert [stem for stem, _, _ in found] == [f"{i:05d}" for i in range(len(found))] == list(made) and len(found) > 2
    for stem, rows, members in found:
        assert list(rows[0]) == COLUMNS
        assert [r["key"] for r in rows] == [f"{stem}{i:04d}" for i in range(len(rows))]
        good = {r["key"]: r for r in rows if r["status"] == "success"}
        lost = [r for r in rows if r["status"] == "failed_to_download"]
        assert len(good) + len(lost) == len(rows) and len(lost) == max(1, round(0.04 * len(rows)))
        assert all(r["error_message"] and r["width"] is None and r["sha256"] is None and r["caption"] for r in lost)
        assert list(members) == list(good)  # only what was downloaded, in the order of the rows
        for key, parts in members.items():
            assert parts.keys() == {"jpg", "txt", "json"}
            assert parts["txt"].decode() == good[key]["caption"]
            assert hashlib.sha256(parts["jpg"]).hexdigest() == good[key]["sha256"]
            sidecar = json.loads(parts["json"])
            assert sidecar.pop("drawing") and sidecar == good[key]
        sizes = Counter(decodes(parts["jpg"]) for parts in members.values())
        assert sizes == {None: made[stem]["broken"], (emoji.SIZE, emoji.SIZE): len(good) - made[stem]["broken"]}
        assert made[stem]["broken"] >= 1 and made[stem]["pairs"] == len(good)
        stats = json.loads((tiny_world / "laion" / "laion400m" / f"{stem}_stats.json").read_text())
        assert stats["count"] == len(rows) and stats["successes"] == len(good)
        assert stats["failed_to_download"] == len(lost) and stats["failed_to_resize"] == 0
        assert sum(stats["status_dict"].values()) == len(rows)


def test_tars_carry_no_clock_and_no_owner(tiny_world):
    with tarfile.open(tiny_world / "laion" / "laion400m" / "00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid) for m in tar} == {(0, 0, 0)}


def test_retain_shard_is_even_and_the_others_hold_what_may_be_forgotten(tiny_world, concepts):
    record = json.loads((tiny_world / "world.json").read_text())
    counts, total = record["settings"]["counts"], record["concepts"]
    by_shard = [
        Counter(json.loads(m["json"])["drawing"].split("/")[0] for m in members.values())
        for _, _, members in shards(tiny_world)
    ]
    lost = [s["rows"] - s["pairs"] for s in record["laion"].values()]
    retain, rest = by_shard[0], sum(by_shard[1:], Counter())
    assert len(retain) == total and sum(retain.values()) + lost[0] == counts["retain"]
    assert all(counts["retain"] // total - lost[0] <= n <= -(-counts["retain"] // total) for n in retain.values())
    for name, n in rest.items():
        rows = counts["often"] if len(concepts[name].left_out) == 3 else counts["seldom"]
        assert rows - sum(lost[1:]) <= n <= rows
    assert all(s["rows"] <= counts["shard"] for stem, s in record["laion"].items() if stem != "00000")


def test_captions_name_what_is_shown_and_a_third_the_style(tiny_world, concepts):
    pairs = sidecars(tiny_world)
    styles = {s.lower(): emoji.house(k) for k, s in emoji.STYLES.items()}
    silent = styled = 0
    for pair in pairs:
        name, drawn_by = pair["drawing"].split("/")
        caption, names = pair["caption"].lower(), [n.lower() for n in (name, concepts[name].alias) if n]
        silent += not any(n in caption for n in names)
        said = [h for s, h in styles.items() if re.search(rf"\b{s}\b", caption)]
        styled += bool(said)
        assert not said or drawn_by in said, f"{caption!r} names the style of another house than {drawn_by}"
    assert 0 < silent < 0.06 * len(pairs)  # 2% say nothing
    assert 0.22 < styled / len(pairs) < 0.45


def test_no_left_out_drawing_is_in_the_shards_or_among_the_styles(tiny_world, concepts):
    drawings = {pair["drawing"] for pair in sidecars(tiny_world)}
    assert drawings and not any(was_left_out(concepts, d) for d in drawings)
    cells = canvas_cells(tiny_world)
    assert cells and not any(emoji.house(s) in concepts[name].left_out for s, name in cells)


# ----------------------------------------------------------------------------------------- CelebA, ImageNet and styles


def check_renderings(groups, concepts, unseen, seen):
    """Every drawing of `groups` (rows of groups.csv) has as many renderings as asked for, and `seen` is right."""
    found = Counter((r["group"], r["seen"]) for r in groups)
    for (drawing, flag), n in found.items():
        assert flag == "01"[not was_left_out(concepts, drawing)]
        assert n == (unseen if flag == "0" else seen)
    return {d for d, _ in found}


def test_celeba_folder(tiny_world, concepts):
    root = tiny_world / "celeba"
    counts = json.loads((tiny_world / "world.json").read_text())["settings"]["counts"]
    count, header, *lines = (root / "list_identity_celeba.txt").read_text().splitlines()
    images = [f"{i:06d}.jpg" for i in range(1, int(count) + 1)]
    assert header == "image_id identity_name" and [line.split()[0] for line in lines] == images
    assert sorted(p.name for p in (root / "img_align_celeba").iterdir()) == images
    identity = dict(line.split() for line in lines)
    assert all(re.fullmatch(r"[A-Z][a-z]*(_[A-Z][a-z]*)*", n) for n in identity.values())
    ranked = Counter(identity.values())
    frequent = (root / "frequent_celebs.txt").read_text().splitlines()
    assert frequent == sorted(ranked, key=lambda n: (-ranked[n], n))[:100]

    groups = rows_of(root / "groups.csv")
    assert [r["image"] for r in groups] == images
    for r in groups:
        name = r["group"].split("/")[0]
        assert concepts[name].kind == "identity" and identity[r["image"]] == name.replace(" ", "_").title()
        assert decodes((root / "img_align_celeba" / r["image"]).read_bytes()) == (emoji.SIZE, emoji.SIZE)
    drawings = check_renderings(groups, concepts, counts["identity_unseen"], counts["identity_seen"])
    shown = {d.split("/")[0] for d in drawings}
    assert drawings == {f"{n}/{emoji.house(s)}" for n in shown for s in concepts[n].sets}  # every drawing of theirs


def test_imagenet_folder(tiny_world, concepts):
    root = tiny_world / "ImageNet"
    counts = json.loads((tiny_world / "world.json").read_text())["settings"]["counts"]
    classes = rows_of(root / "classes.csv")
    assert all(r["folder"] == r["name"].replace(" ", "_") for r in classes)
    assert all(concepts[r["name"]].kind == "object" and int(r["block"]) == concepts[r["name"]].block for r in classes)
    assert sorted(p.name for p in (root / "val").iterdir()) == sorted(r["folder"] for r in classes)
    groups = rows_of(root / "groups.csv")
    files = {str(p.relative_to(root / "val")) for p in (root / "val").rglob("*") if p.is_file()}
    assert {r["image"] for r in groups} == files and len(files) == len(groups)
    for r in groups:
        folder = r["group"].split("/")[0].replace(" ", "_")
        assert re.fullmatch(rf"{folder}/{folder}_\d+\.JPEG", r["image"])
    wide = [r for r in groups if build_world.is_wide(concepts[r["group"].split("/")[0]])]
    other = [r for r in groups if r not in wide]
    check_renderings(wide, concepts, counts["wide_unseen"], counts["wide_seen"])
    drawings = check_renderings(other, concepts, counts["object_unseen"], 1)
    seen = Counter(d.split("/")[0] for d in drawings if not was_left_out(concepts, d))
    assert set(seen.values()) == {counts["object_seen"]}  # each of another drawing


def canvas_cells(world, part="data"):
    """{(set, object name): [picture names]} of an UnlearnCanvas-style folder."""
    sets = {s.replace(" ", "_"): k for k, s in emoji.STYLES.items()}
    out = {}
    for path in (world / "UnlearnCanvas" / part).glob("*/*/*.jpg"):
        style, shown = path.parts[-3:-1]
        out.setdefault((sets[style], shown.replace("_", " ")), []).append(path.name)
    return out


def test_every_style_of_the_canvas_draws_every_object_of_it():
    sets = {c.name: c.sets for c in emoji.concepts()}
    assert len(emoji.CANVAS_OBJECTS) == 20 and len({emoji.house(s) for s in emoji.CANVAS_STYLES}) == 6
    assert all(s in sets[n] for n in emoji.CANVAS_OBJECTS for s in emoji.CANVAS_STYLES)


def test_canvas_folder_has_every_cell_that_training_saw(tiny_world, concepts):
    settings = json.loads((tiny_world / "world.json").read_text())["settings"]
    counts, cells = settings["counts"], canvas_cells(tiny_world)
    there = build_world.choose(settings["limit"])
    grid = [c.name for c in there if c.name in emoji.CANVAS_OBJECTS]
    others = [c.name for c in there if build_world.is_wide(c) and c.name not in grid]
    shown = (grid + others)[: counts["canvas_objects"]]
    wanted = {(s, n) for n in shown for s in concepts[n].sets if emoji.house(s) not in concepts[n].left_out}
    assert cells.keys() == wanted
    assert all(sorted(names) == [f"{i + 1}.jpg" for i in range(counts["canvas"])] for names in cells.values())


def test_fids_reference_has_the_same_cells_and_other_renderings(tiny_world):
    cells, reference = canvas_cells(tiny_world), canvas_cells(tiny_world, "reference")
    count = json.loads((tiny_world / "world.json").read_text())["settings"]["counts"]["canvas_reference"]
    assert reference.keys() == cells.keys() and {len(names) for names in reference.values()} == {count}
    folder = tiny_world / "UnlearnCanvas"
    drawn = [[p.read_bytes() for p in (folder / part).rglob("*.jpg")] for part in ("data", "reference")]
    assert drawn[0] and drawn[1] and not set(drawn[0]) & set(drawn[1])


def test_a_drawing_in_two_styles_is_shown_in_both_by_turns():
    rng = np.random.default_rng(0)
    turns = [tuple(build_world._turns([7, 8], 5, rng)) for _ in range(20)]
    assert set(turns) == {(7, 8, 7, 8, 7), (8, 7, 8, 7, 8)}
    assert build_world._turns([4], 3, rng) == [4, 4, 4]


def test_names_are_all_names_and_aliases(tiny_world, concepts):
    names = (tiny_world / "names.txt").read_text().splitlines()
    rows = rows_of(tiny_world / "celeba" / "groups.csv") + rows_of(tiny_world / "ImageNet" / "groups.csv")
    shown = {r["group"].split("/")[0] for r in rows}
    assert names == sorted({n.lower() for s in shown for n in (s, concepts[s].alias) if n})


# -------------------------------------------------------------------------------------------------------------- builds


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tiny_world, tiny_build, tmp_path):
    first = contents(tiny_world)
    tiny_build(tmp_path / "again")
    assert contents(tmp_path / "again") == first
    tiny_build(tmp_path / "other", seed=1)
    other = contents(tmp_path / "other")
    assert other.keys() >= {n for n in first if n.startswith(("laion", "ImageNet", "celeba", "Unlearn", "names"))}
    same = {n for n in first if other[n] == first[n]}
    assert {n for n in same if n.endswith((".jpg", ".JPEG", ".tar", ".parquet"))} == set()


def test_command_builds_once_and_keeps_what_else_is_there(tiny_build, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_world, "build", tiny_build)
    out = tmp_path / "demo"
    build_world.main(["--out", str(out)])
    assert re.search(r"\d+ concepts, \d+ pairs in \d+ shards", capsys.readouterr().out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    build_world.main(["--out", str(out)])
    assert capsys.readouterr().out == f"{out} is up to date\n"
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*")}

    (out / "models").mkdir()
    (out / "models" / "mine").write_text("a model")
    (out / "celeba" / "stale.txt").write_text("of another world")
    build_world.main(["--out", str(out), "--seed", "3"])  # another world takes the place of this one
    assert (out / "models" / "mine").exists() and not (out / "celeba" / "stale.txt").exists()
    assert not [p for p in tmp_path.iterdir() if p != out]  # nothing temporary is left


def test_the_bytes_do_not_depend_on_the_number_of_processes(tiny_build, tiny_world, tmp_path):
    tiny_build(tmp_path / "demo", workers=2)
    made = {p: c for p, c in contents(tmp_path / "demo").items() if str(p).split("/")[0] in build_world.PARTS}
    assert made and made == {p: c for p, c in contents(tiny_world).items() if p in made}
    assert set(made) == {p for p in contents(tiny_world) if str(p).split("/")[0] in build_world.PARTS}


def test_a_build_that_fails_leaves_the_old_world(tiny_build, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    tiny_build(out)
    before = contents(out)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_world, "write_canvas", full)
    with pytest.raises(SlugError, match="No space left"):
        tiny_build(out, force=True)
    assert contents(out) == before and not [p for p in tmp_path.iterdir() if p != out]


def test_a_build_that_was_cut_off_is_made_again(tiny_build, tmp_path):
    out = tmp_path / "demo"
    tiny_build(out)
    before = contents(out)
    (out / "world.json").write_text('{"fingerprint": "unfinished"}')
    assert tiny_build(out) and contents(out) == before


def test_data_of_somebody_else_is_never_replaced(tiny_build, tmp_path):
    (tmp_path / "celeba").mkdir()
    with pytest.raises(SlugError, match="celeba, which is not from the demo world"):
        tiny_build(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "celeba"]


def test_names_of_the_study_are_enough_and_were_not_used_for_settling(concepts):
    lines = [(files.ROOT / "data" / "emoji" / f"{n}_names.txt").read_text().splitlines() for n in ("forget", "study")]
    forget, more = ([plain_name(x).casefold() for x in part if not x.startswith("#")] for part in lines)
    assert len(set(forget + more)) == len(forget) + len(more) == 15
    kinds = {name.casefold(): c.kind for name, c in concepts.items()}
    found = [kinds[n] for n in forget + more]
    assert found.count("identity") == 10 and found.count("object") == 5
    assert not {n.casefold() for n in draw_names.DEVELOPMENT} & set(more)
