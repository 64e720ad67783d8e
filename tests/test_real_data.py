"""Real data: ImageNet's archives, CelebA's lists, the check of every data set, and stand-ins of the downloads."""

import csv
import importlib.util
import shutil
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before timm)

import pytest
import tiny
import torch
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo

from demo import build_standin
from slug.data import checks, evaluation_sets, preparation
from slug.data.names import clean_name
from slug.data.pairs import TarMembers, read_tar
from slug.errors import SlugError
from slug.evaluation import zeroshot

# WordNet ids of things whose names need no list to look up, and devkit ids that neither count from 0 nor sort as they do.
IDS = {"n07753592": 3, "n07749582": 1, "n02129165": 4, "n04398044": 2}
NAMES = {"n07753592": "banana", "n07749582": "lemon", "n02129165": "lion", "n04398044": "teapot"}
TRUTH = [2, 4, 4, 1, 3, 2]  # of pictures 1 to 6
LABELS = ["teapot", "lion", "lion", "lemon", "banana", "teapot"]


def script(name):
    """The module of scripts/{name}.py."""
    spec = importlib.util.spec_from_file_location(name, tiny.ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------------ ImageNet


@pytest.fixture
def archives(tmp_path):
    """A folder with both archives of six pictures, the tar's members in no order."""
    build_standin.write_devkit(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", IDS, TRUTH)
    members = {f"ILSVRC2012_val_{n:08d}.JPEG": tiny.jpeg(n) for n in (4, 1, 6, 2, 5, 3)}
    tiny.write_tar(tmp_path / "ILSVRC2012_img_val.tar", members)
    return tmp_path


def unpack(folder, **more):
    archive = folder / "ILSVRC2012_img_val.tar", folder / "ILSVRC2012_devkit_t12.tar.gz"
    return preparation.unpack_imagenet(*archive, folder / "val", checksum=False, **more)


def unpacked(folder):
    """{number of a picture: the name of its folder's class}."""
    return {int(p.stem[-8:]): NAMES[p.parent.name] for p in (folder / "val").glob("*/*")}


def test_devkit_ids_count_from_1_and_inner_nodes_are_no_classes(archives):
    wnids = preparation.devkit_labels(archives / "ILSVRC2012_devkit_t12.tar.gz")
    assert [NAMES[w] for w in wnids] == LABELS


def test_pictures_go_where_the_devkit_says_by_their_number(archives):
    assert unpack(archives) == (6, 4, True)
    assert unpacked(archives) == dict(enumerate(LABELS, 1))
    assert (archives / "val/n07749582/ILSVRC2012_val_00000004.JPEG").read_bytes() == tiny.jpeg(4)
    assert unpack(archives) == (6, 4, False)
    assert tiny.left_over(archives) == []


def test_a_stopped_unpacking_goes_on(archives, monkeypatch):
    read, done = TarMembers.__getitem__, []

    def three(members, name):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return read(members, name)

    monkeypatch.setattr(TarMembers, "__getitem__", three)
    with pytest.raises(KeyboardInterrupt):
        unpack(archives)
    assert not (archives / "val").exists()
    written = []
    monkeypatch.setattr(TarMembers, "__getitem__", lambda members, name: written.append(name) or read(members, name))
    assert unpack(archives) == (6, 4, True) and len(written) == 3
    assert unpacked(archives) == dict(enumerate(LABELS, 1))


def test_imagenet_archives_that_will_not_do(archives):
    tar, devkit, val = archives / "ILSVRC2012_img_val.tar", archives / "ILSVRC2012_devkit_t12.tar.gz", archives / "val"
    with pytest.raises(SlugError, match="not the official archive"):
        preparation.unpack_imagenet(tar, devkit, val)
    whole = tar.read_bytes()
    tar.write_bytes(whole[:3000])
    with pytest.raises(SlugError, match="not a whole tar"):
        unpack(archives)
    tiny.write_tar(tar, {f"ILSVRC2012_val_{n:08d}.JPEG": tiny.jpeg(n) for n in (1, 2, 4, 5, 6)})
    with pytest.raises(SlugError, match="5 of 6 pictures"):
        unpack(archives)
    tiny.write_tar(tar, {"ILSVRC2012_val_00000007.JPEG": tiny.jpeg(7)})
    with pytest.raises(SlugError, match="the devkit has no label"):
        unpack(archives)
    assert not val.exists()
    tar.write_bytes(whole)
    unpack(archives)
    next(val.glob("n02129165/*")).unlink()
    with pytest.raises(SlugError, match="lacks 1 of 6"):
        unpack(archives)
    devkit.write_bytes(devkit.read_bytes()[:500])
    with pytest.raises(SlugError, match="not ImageNet's devkit"):
        unpack(archives)
    build_standin.write_devkit(devkit, IDS, [*TRUTH, 9])  # an id that no class has
    with pytest.raises(SlugError, match="not ImageNet's devkit"):
        unpack(archives)


def test_the_stage_unpacks_and_says_what_is_missing(archives, capfd, monkeypatch):
    call = ["--tar", archives / "ILSVRC2012_img_val.tar", "--devkit", archives / "ILSVRC2012_devkit_t12.tar.gz"]
    call += ["--imagenet-val", archives / "val", "--any-archive"]
    tiny.run("a0_prepare_imagenet", *call)
    assert "6 pictures of 4 classes" in capfd.readouterr().out
    line = tiny.failure(monkeypatch, capfd, "a0_prepare_imagenet", "--tar", archives / "nowhere.tar")
    assert "registration" in line


def test_class_names_stand_in_the_order_of_the_wordnet_ids():
    names, lemmas = evaluation_sets.imagenet_names(), ImageNetInfo("imagenet-1k").label_descriptions(as_dict=True)
    assert list(names) == sorted(names) and list(names.values()) == list(IMAGENET_CLASSNAMES)
    assert {w: names[w] for w in NAMES} == NAMES
    # open_clip mended many names; where it kept one of WordNet's, that must be the id's own.
    same = [w for w, n in names.items() if n.casefold() in lemmas[w].casefold().split(", ")]
    assert len(same) > 600


def test_the_loader_takes_wordnet_folders_and_all_classes(archives, tiny_clip):
    unpack(archives)
    pictures = evaluation_sets.load_imagenet(archives / "val", tiny.load(tiny_clip).transform)
    shown = {int(p[-13:-5]): pictures.names[label] for p, label in zip(pictures.paths, pictures.labels, strict=True)}
    assert shown == dict(enumerate(LABELS, 1))
    assert len(pictures.names) == len(set(pictures.names)) == 998 and not pictures.blocks.any()
    assert len(zeroshot.object_templates()) == 7


def test_synsets_of_one_name_are_one_class(tmp_path, tiny_clip):
    for n, wnid in enumerate(("n04355933", "n04356056", "n07753592")):  # sunglass, sunglasses, banana
        (tmp_path / "val" / wnid).mkdir(parents=True)
        (tmp_path / "val" / wnid / "1.JPEG").write_bytes(tiny.jpeg(n))
    pictures = evaluation_sets.load_imagenet(tmp_path / "val", tiny.load(tiny_clip).transform)
    assert [pictures.names[i] for i in pictures.labels] == ["sunglasses", "sunglasses", "banana"]
    # As classes of their own, with the same prompts, each would tie with the other and be wrong.
    weights = torch.eye(len(pictures.names))
    rank = zeroshot.ranks(weights[pictures.labels], weights, pictures.labels, pictures.blocks)
    assert rank.tolist() == [0, 0, 0]


def test_a_folder_that_is_no_class_is_named(archives):
    unpack(archives)
    (archives / "val" / "bananas").mkdir()
    with pytest.raises(SlugError, match="folder bananas, which is no WordNet id"):
        evaluation_sets.imagenet_classes(archives / "val")


# -------------------------------------------------------------------------------------------------------------- CelebA


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("Elon_Musk", "Elon Musk"),
        ("Chris_Evans_(actor)", "Chris Evans"),
        ("Robert__Downey_Jr.", "Robert Downey Jr."),
        ("Beyonce\u0301", "Beyonc\u00e9"),  # composed
        ("O&#39;Neal", "O'Neal"),
        ("Zo\u200be_Kazan", "Zoe Kazan"),  # a space that does not show
        ("Sean Penn [2]", "Sean Penn"),
        ("Mary-Kate_Olsen", "Mary-Kate Olsen"),
    ],
)
def test_names_are_cleaned(listed, name):
    assert clean_name(listed) == name == clean_name(name)


PEOPLE = ["Ann_Bo"] * 5 + ["Cy_Do_(actor)"] * 6 + ["Ed Fox"] * 4 + ["Gil_Ho"] * 3 + ["Ivy_Jo"] * 4 + ["Kay_Lo"]


def write_celeba(root, people=PEOPLE, *, left_out=(), numbers=None):
    """A CelebA folder; picture n (from 1) shows people[n - 1]."""
    (root / "img_align_celeba").mkdir(parents=True)
    images = [f"{n:06d}.jpg" for n in range(1, len(people) + 1)]
    for n, image in enumerate(images, 1):
        if n not in left_out:
            (root / "img_align_celeba" / image).write_bytes(tiny.jpeg(n))
    lines = [str(len(people)), "image_id identity_name", *(f"{i} {p}" for i, p in zip(images, people, strict=True))]
    (root / "list_identity_celeba.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if numbers:
        lines = [f"{i} {n}\n" for i, n in zip(images, numbers, strict=True)]
        (root / "identity_CelebA.txt").write_text("".join(lines))


def test_the_most_frequent_identities_are_shown_and_the_forget_names(tmp_path, tiny_clip, capsys):
    write_celeba(tmp_path, left_out=(1, 6, 7))  # on disk: Ann 4, Cy 4, Ed 4, Gil 3, Ivy 4, Kay 1
    found = preparation.choose_identities(tmp_path, count=3)
    assert found.chosen == ["Ann Bo", "Cy Do", "Ed Fox"] and found.missing == 3  # ties by name
    assert preparation.choose_identities(tmp_path, count=9).chosen == ["Ann Bo", "Cy Do", "Ed Fox", "Ivy Jo"]  # four or more
    tiny.run("a0_prepare_celeba", "--data-root", tmp_path, "--count", 2, "--name", "gil_ho", "Ann_Bo")
    assert (tmp_path / "frequent_celebs.txt").read_text() == "Ann_Bo\nCy_Do\nGil_Ho\n"
    assert "3 identities are shown, 3 to 4 pictures each" in capsys.readouterr().out
    pictures = evaluation_sets.load_celeba(tmp_path, tiny.load(tiny_clip).transform)
    assert pictures.names == ["Ann Bo", "Cy Do", "Ed Fox", "Gil Ho", "Ivy Jo", "Kay Lo"] and pictures.broken == 3
    assert [pictures.labels.tolist().count(i) for i in range(6)] == [4, 4, 0, 3, 0, 0]


def test_a_list_of_frequent_identities_that_is_there_stays(tmp_path):
    write_celeba(tmp_path)
    path = tmp_path / "frequent_celebs.txt"
    path.write_text("Cy_Do\nAnn_Bo\nGil_Ho\n")
    assert preparation.write_identities(tmp_path, ["Ann Bo", "Cy Do"]) == (path, False)
    with pytest.raises(SlugError, match=r"lacks 1 identities, e\.g\. Ivy Jo"):
        preparation.write_identities(tmp_path, ["Ann Bo", "Ivy Jo"])
    assert path.read_text() == "Cy_Do\nAnn_Bo\nGil_Ho\n"
    preparation.write_identities(tmp_path, ["Ann Bo", "Ivy Jo"], force=True)
    assert path.read_text() == "Ann_Bo\nIvy_Jo\n"


def test_numbers_are_held_against_names(tmp_path):
    numbers = [7] * 4 + [8] + [2] * 6 + [3] * 4 + [4] * 3 + [4] * 4 + [5]
    write_celeba(tmp_path, numbers=numbers)
    found = preparation.choose_identities(tmp_path)
    assert found.shared == ["Ann Bo"] and found.torn == ["4"]


def test_identity_lists_that_will_not_do(tmp_path):
    write_celeba(tmp_path)
    path = tmp_path / "list_identity_celeba.txt"
    good = path.read_bytes()
    with pytest.raises(SlugError, match=r"nobody .* is called 'Ann Bow'; similar names: Ann Bo"):
        preparation.choose_identities(tmp_path, always=["Ann_Bow"])
    with pytest.raises(SlugError, match="has 1 pictures of Kay Lo"):
        preparation.choose_identities(tmp_path, always=["Kay_Lo"])
    path.write_bytes(good[:-20])
    with pytest.raises(SlugError, match="22 good rows of 22, 23 promised"):
        preparation.choose_identities(tmp_path)
    path.write_bytes(good.replace(b"Ann_Bo", b"Ann_B\xf6"))
    with pytest.raises(SlugError, match="not UTF-8"):
        preparation.choose_identities(tmp_path)
    path.write_text("000001.jpg 2880\n000002.jpg 12\n")  # identity_CelebA.txt under the other's name
    with pytest.raises(SlugError, match="numbers instead of names"):
        preparation.choose_identities(tmp_path)
    path.write_bytes(good.partition(b"\n")[2])  # without its count
    assert len(preparation.choose_identities(tmp_path).counts) == 6
    path.write_bytes(b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n"))
    assert len(preparation.choose_identities(tmp_path).counts) == 6
    shutil.rmtree(tmp_path / "img_align_celeba")
    with pytest.raises(SlugError, match=r"unpack img_align_celeba.zip"):
        preparation.choose_identities(tmp_path)


# -------------------------------------------------------------------------------------------------------- check of data


@pytest.fixture(scope="module")
def world(tiny_world, tmp_path_factory):
    """The tiny world, two of whose objects are called as classes of ImageNet are."""
    out = tmp_path_factory.mktemp("named") / "world"
    shutil.copytree(tiny_world, out)
    table = out / "ImageNet" / "classes.csv"
    head, first, second, *rest = table.read_text().splitlines()
    first, second = (f"{line.split(',')[0]},{name},0" for line, name in ((first, "banana"), (second, "lemon")))
    table.write_text("\n".join([head, first, second, *rest]) + "\n")
    return out


@pytest.fixture(scope="module")
def standin(world, tmp_path_factory):
    """The data folder of a repository with stand-ins of the downloads, unpacked as README's chapter says."""
    out = tmp_path_factory.mktemp("standin") / "clone"
    build_standin.build(out, world)
    root = out / "data"
    imagenet = root / "ImageNet"
    archive = imagenet / "ILSVRC2012_img_val.tar", imagenet / "ILSVRC2012_devkit_t12.tar.gz"
    preparation.unpack_imagenet(*archive, imagenet / "val", checksum=False)
    shutil.unpack_archive(root / "celeba" / "img_align_celeba.zip", root / "celeba")
    preparation.write_identities(root / "celeba", preparation.choose_identities(root / "celeba").chosen)
    return root


def test_stand_ins_are_the_worlds_pictures_under_their_names(standin, world, tiny_clip):
    transform = tiny.load(tiny_clip).transform
    with (world / "ImageNet/classes.csv").open(newline="") as f:
        folders = {r["folder"]: r["name"] for r in csv.DictReader(f)}
    shows = {p.read_bytes(): folders[p.parent.name] for p in (world / "ImageNet/val").glob("*/*")}
    objects = evaluation_sets.load_imagenet(standin / "ImageNet/val", transform)
    assert {objects.names[i] for i in objects.labels.tolist()} == {"banana", "lemon"}
    for path, label in zip(objects.paths, objects.labels.tolist(), strict=True):
        assert objects.names[label] == shows[Path(path).read_bytes()]
    faces, originals = (
        evaluation_sets.load_celeba(standin / "celeba", transform),
        evaluation_sets.celeba_names(world / "celeba"),
    )
    of = {(world / "celeba/img_align_celeba" / i).read_bytes(): n for i, n in originals.items()}
    assert {faces.names[label] for label in faces.labels.tolist()} == set(originals.values())
    for path, label in zip(faces.paths, faces.labels.tolist(), strict=True):
        assert faces.names[label] == of[Path(path).read_bytes()]


def states(root, *keys):
    return {s.what: s for s in checks.states(root, keys or script("check_data").KEYS)}


def test_nothing_there_says_what_to_do(tmp_path):
    for state in states(tmp_path / "data").values():
        assert not (state.found or state.complete or state.usable) and state.todo
    found = states(tmp_path / "data")
    assert "ask its authors" in found["CelebA"].todo and "register" in found["ImageNet val"].todo


def test_stand_ins_are_usable_and_complete_only_where_they_are(standin):
    found = states(standin)
    complete = {"LAION shards", "retain set", "CelebA", "UnlearnCanvas classifiers"}
    assert {n for n, s in found.items() if s.usable} == complete | {"ImageNet val", "UnlearnCanvas"}
    assert {n for n, s in found.items() if s.complete} == complete
    assert all(bool(s.todo) != s.complete for s in found.values())


def test_damage_is_seen(standin, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(standin, root, ignore=shutil.ignore_patterns("models", "emoji"))
    shard = sorted((root / "laion/laion400m").glob("*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    for path in (root / "celeba/img_align_celeba").iterdir():
        path.write_bytes(b"no picture")
    (root / "ImageNet/val/strange").mkdir()
    for path in (root / "UnlearnCanvas/classifiers").iterdir():
        path.unlink()
    (root / "UnlearnCanvas/classifiers/style.pth").write_bytes(b"weights")
    found = states(root)
    assert not found["UnlearnCanvas classifiers"].usable and "no object weights" in found["UnlearnCanvas classifiers"].detail
    assert found["LAION shards"].usable and not found["LAION shards"].complete
    assert not found["CelebA"].usable and "none of the 16" in found["CelebA"].detail
    assert not found["ImageNet val"].usable and "strange" in found["ImageNet val"].detail


def test_classifiers_are_usable_with_both_weights_and_what_describes_them(tmp_path):
    def state():
        (found,) = checks.states(tmp_path, ["classifiers"], classifiers=str(tmp_path / "c"))
        return found

    (tmp_path / "c").mkdir()
    for kind in ("style", "object"):
        assert not state().usable
        (tmp_path / f"c/{kind}.pth").write_bytes(b"weights")
    assert state().usable and "vit_large_patch16_224, 51 styles and 20 objects" in state().detail  # the published ones
    for damage in ("{", "[]", '{"arch": "resnet10t"}'):
        (tmp_path / "c/classifiers.json").write_text(damage)
        assert not state().usable and "classifiers.json" in state().detail


def test_check_data_prints_all_and_fails_only_where_it_is_strict(standin, capsys):
    check = script("check_data")
    check.main(["--data-dir", str(standin), "--name", "Nobody Atall"])
    said = capsys.readouterr().out
    assert "forget set Nobody_Atall" in said and "a0_create_tar.py --name Nobody_Atall" in said
    check.main(["--data-dir", str(standin), "--only", "celeba", "imagenet", "--strict"])
    assert "LAION" not in capsys.readouterr().out
    with pytest.raises(SlugError, match="forget set Nobody_Atall cannot be used"):
        check.main(["--data-dir", str(standin), "--only", "forget", "celeba", "--name", "Nobody_Atall", "--strict"])


# ------------------------------------------------------------------------------------------------------------- estimate


@pytest.fixture(scope="module")
def estimate():
    return script("estimate")


SAMPLE = {
    **{"model": "M", "device": "CPU", "measured": "2026-01-01", "parameters": 1000, "blocks": 4, "image_size": 10},
    **{"pair_s": 2.0, "gradient_batch_s": 16.0, "optimiser_s": 32.0, "pair_bytes": 100.0, "decode_s": 0.0},
    **{"vision_s": 1.0, "language_s": 0.1, "vision_flop": 10.0, "language_flop": 1.0, "caption_s": 0.5},
}


def plan(estimate, counts, *arguments):
    return {s.stage.split(",")[0]: s for s in estimate.plan(counts, SAMPLE, estimate.parse_args(list(arguments)))}


def test_the_plan_is_counts_by_seconds(estimate):
    counts = estimate.Counts(
        names=2, compared=1, captions=10, forget=6, retain=20, identities=8, objects=4, identity_texts=30, object_texts=70
    )
    small = ["--unlearn-method", "ft", "ga", "--lr", "1", "2", "--epochs", "3", "--forget-epochs", "5", "--front", "1"]
    found = plan(estimate, counts, *small)
    assert found["curation"].seconds == 5.0
    assert found["gradients"].seconds == 26 * (2 + 16 / 16)
    assert found["gradients"].flop == 26 * 3 * 11
    assert found["gradients"].disk == 3 * 4000 and found["gradients"].memory == 4 * 4000 + 16 * 100
    # Once all pictures and texts; a name: ten steps of a vision layer (half a tower, half of the pictures), ten of a
    # language layer (half a tower), and the report.
    assert found["slug"].seconds == pytest.approx(22 + 2 * (10 * (3 + 5) + 22))
    # ft: two rates, three epochs of the retain set; ga: two rates, five epochs of three pairs; each epoch is looked at.
    assert found["baselines"].seconds == pytest.approx(22 + 6 * (20 * (2 + 1) + 16) + 10 * (3 * (2 + 1) + 16))
    again = plan(estimate, counts._replace(compared=0), *small)
    assert again["baselines"].seconds == 0


def test_counts_are_of_what_is_there_else_the_papers(estimate, standin, tmp_path):
    names = ["--celeb-name", "Ann_Bo"]
    there = ["--train-data", str(standin / "laion/laion400m/00000.tar"), "--laion-dir", str(standin / "laion/laion400m")]
    there += ["--val-data", str(standin / "celeba"), "--imagenet-val", str(standin / "ImageNet/val")]
    found = estimate.count(estimate.parse_args([*names, *there, "--imagenet-share", "1", "--tar-dir", str(tmp_path)]))
    assert found.assumed == ("1 forget sets of 500",) and found.forget == 500
    assert found.retain == len(read_tar(standin / "laion/laion400m/00000.tar"))
    assert found.objects == len(list((standin / "ImageNet/val").glob("*/*"))) and found.object_texts == 998 * 7
    assert found.identities == len(list((standin / "celeba/img_align_celeba").iterdir()))
    nowhere = [f"--{flag}={tmp_path}/none" for flag in "tar-dir train-data val-data imagenet-val laion-dir".split()]
    found = estimate.count(estimate.parse_args([*names, *nowhere]))
    assert (found.retain, found.objects, found.identity_texts) == (7900, 2500, 10177) and len(found.assumed) == 6


def test_a_sample_is_measured_once_and_kept(estimate, tiny_clip, tmp_path, capsys, monkeypatch):
    call = ["--model", f"local-dir:{tiny_clip / 'open_clip'}", "--result-dir", str(tmp_path), "--device", "cpu"]
    estimate.main([*call, "--stored"])
    assert "no estimate" in capsys.readouterr().out and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(estimate, "timed", lambda work, *_, **__: work() is None or 1.0)
    estimate.main(call)
    assert "measured now" in capsys.readouterr().out
    sample = estimate.files.read_json(tmp_path / "estimate" / "open_clip-cpu.json")
    clip = tiny.load(tiny_clip)
    assert sample["parameters"] == sum(p.numel() for p in clip.parameters.values()) and sample["pair_bytes"] > 0
    monkeypatch.setattr(estimate, "measure", None)
    for more in ([], ["--stored"]):
        estimate.main([*call, *more])
        assert "measured before" in capsys.readouterr().out


def test_readmes_estimate_is_what_the_command_prints(estimate, tmp_path, capsys):
    readme = (tiny.ROOT / "README.md").read_text()
    block = readme.partition("<!-- estimate -->\n")[2].partition("\n<!-- /estimate -->")[0]
    nowhere = [f"--{flag}={tmp_path}/none" for flag in "tar-dir train-data val-data imagenet-val laion-dir".split()]
    estimate.main(["--stored", "--sample", str(estimate.COMMITTED / "ViT-B-32-cpu.json"), *nowhere])
    assert block and capsys.readouterr().out.partition("\n")[2].strip() == block


# ------------------------------------------------------------------------------------------- README's chapter, followed


def test_readmes_commands_are_found_by_chapter():
    text = "## A\n```bash\nbash scripts/a.sh   # says\nls\n```\nsee `bash scripts/a.sh` and `X=1 python src/b.py --c`\n"
    text += "## B\n`bash scripts/d.sh`"
    found = [("A", "bash scripts/a.sh", True), ("A", "bash scripts/a.sh", False)]
    found += [("A", "X=1 python src/b.py --c", False), ("B", "bash scripts/d.sh", False)]
    assert script("readme_commands").commands(text) == found


def test_the_chapter_prepares_checks_plans_and_runs():
    found = script("readme_commands").commands((tiny.ROOT / "README.md").read_text())
    chapter = [command for title, command, block in found if title == "Real data" and block]
    wanted = ["check_data.py", "valprep.sh", "prepare_celeba.sh", "run_all_clip.sh --dry-run", "run_all_clip.sh"]
    pipelines = ["a0_create_prompts_uncanvas.py", "run_uncanvas.sh", "run_compute_grad_sd.sh", "run_sd.sh"]
    assert [next(w for w in wanted + pipelines if c.endswith(w)) for c in chapter if "zipfile" not in c] == [
        *wanted[:3],
        *wanted[:1],
        *wanted[3:],
        *pipelines,
    ]


def test_following_writes_commands_and_what_they_said(tmp_path):
    follow = script("readme_commands").follow
    (tmp_path / "src").mkdir()
    record = tmp_path / "record.md"
    follow(["printf 'a 5%%|#| 1/2\\rwhole\\n\\x1b[A' && echo $PWD/data"], tmp_path, record)
    text = record.read_text()
    assert "whole" in text and "5%|" not in text and "\x1b" not in text and str(tmp_path) not in text
    with pytest.raises(SlugError, match="failed on the stand-ins: false"):
        follow(["echo first", "false", "echo never"], tmp_path, record)
    assert "exit code 1" in record.read_text() and "never" not in record.read_text()
