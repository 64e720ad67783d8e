"""Curation as a user runs it: sources, names, which tars are kept, and what ends with one line."""

import io
import tarfile

import pytest
import tiny
from PIL import Image

from slug.data.pairs import read_tar
from slug.errors import SlugError


@pytest.fixture
def shards(tmp_path):
    """Two shards: 6 usable pairs of Elon Musk (4 and 2), one broken, one not downloaded; and a name beside it."""
    captions = ["Elon Musk", "a dog", "elon-musk smiles", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk", "musk", "Elon musk"]
    tiny.write_shard(tmp_path / "shards", 0, captions, broken=(2,))
    tiny.write_shard(tmp_path / "shards", 1, ["elon musk 1", "Elon Musk 2", "elon musk 3"], failed=(1,))
    return tmp_path / "shards"


def places(out):
    return ["--tar-dir", out / "tars", "--image-dir", out / "pictures", "--result-dir", out / "results"]


def curate(shards, out, *arguments):
    """Run the stage into `out`; returns the folder of the tars."""
    source = ["--laion-dir", shards] if shards else []
    tiny.run("a0_create_tar", *source, *places(out), *arguments)
    return out / "tars"


def captions_of(path):
    return [caption for _, _, caption in read_tar(path)]


# ------------------------------------------------------------------------------------------------------------- shards


def test_pairs_are_numbered_in_shard_and_row_order(shards, tmp_path):
    found = read_tar(curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar")
    assert [key for key, _, _ in found] == [f"Elon_Musk_{i}" for i in range(6)]
    assert [image for _, image, _ in found] == [tiny.jpeg(i) for i in (0, 3, 4, 6, 0, 2)]


def test_captions_stay_as_they_are(shards, tmp_path):
    tars = curate(shards, tmp_path, "--name", "Elon_Musk", "Jeff_Bezos")
    wanted = ["Elon Musk", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk", "Elon musk", "elon musk 1", "elon musk 3"]
    assert captions_of(tars / "Elon_Musk.tar") == wanted
    assert captions_of(tars / "Jeff_Bezos.tar") == ["Jeff Bezos and Elon Musk"]


def test_counts_are_printed(shards, tmp_path, capsys):
    tars = curate(shards, tmp_path, "--name", "Elon_Musk")
    said = capsys.readouterr().out
    assert "Elon_Musk: 6 pairs (00000: 4, 00001: 2), 1 broken" in said and str(tars / "Elon_Musk.tar") in said


def test_the_pictures_of_the_tar_lie_in_a_folder_too(shards, tmp_path):
    tars = curate(shards, tmp_path, "--name", "Elon_Musk")
    folder = tmp_path / "pictures" / "Elon_Musk"
    wanted = {f"{key}.jpg": image for key, image, _ in read_tar(tars / "Elon_Musk.tar")}
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == wanted


def test_names_of_any_script_are_found_and_written(tmp_path):
    tiny.write_shard(tmp_path / "s", 0, ["BEYONCE\u0301 live", "beyonce", "中 文", "Shaquille O'Neal"])
    tars = curate(tmp_path / "s", tmp_path, "--name", "Beyoncé", "中", "Shaquille O'Neal")
    assert {p.name for p in tars.glob("*.tar")} == {"Beyoncé.tar", "中.tar", "Shaquille_O'Neal.tar"}
    assert captions_of(tars / "Beyoncé.tar") == ["BEYONCE\u0301 live"]


@pytest.mark.parametrize(("known", "wanted"), [(True, ["a fish", "fish beside a tropical fish"]), (False, None)])
def test_known_names_let_the_longest_win(tmp_path, known, wanted):
    captions = ["tropical fish", "a fish", "fish beside a tropical fish"]
    tiny.write_shard(tmp_path / "s", 0, captions)
    (tmp_path / "names.txt").write_text("fish\ntropical fish\n")
    more = ["--known-names", tmp_path / "names.txt"] if known else []
    assert captions_of(curate(tmp_path / "s", tmp_path, "--name", "fish", *more) / "fish.tar") == (wanted or captions)


def test_curation_of_the_world_agrees_with_a_plain_scan(tiny_world, tmp_path):
    tars = curate(tiny_world / "laion/laion400m", tmp_path, "--name", "Alien", "--known-names", tiny_world / "names.txt")
    wanted = []
    for path in sorted((tiny_world / "laion/laion400m").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        for name in (n for n in members if n.endswith(".txt")):
            caption = members[name].decode()
            try:
                Image.open(io.BytesIO(members[name.replace(".txt", ".jpg")])).load()
            except OSError:
                continue
            if "alien" in caption.casefold().replace("alien monster", ""):
                wanted.append(caption)
    assert len(wanted) > 10 and captions_of(tars / "Alien.tar") == wanted


# ------------------------------------------------------------------------------------------------------- kept tars


def test_a_second_run_gives_the_same_tar(shards, tmp_path):
    path = curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar"
    first = path.read_bytes()
    curate(shards, tmp_path, "--name", "Elon_Musk", "--force")
    assert path.read_bytes() == first


def test_a_run_that_finds_nothing_leaves_the_good_tar(shards, tmp_path):
    path = curate(shards, tmp_path, "--name", "Elon_Musk") / "Elon_Musk.tar"
    first = path.read_bytes()
    tiny.write_shard(tmp_path / "other", 0, ["a dog"])
    with pytest.raises(SlugError, match=r"no caption .* names Elon_Musk"):
        curate(tmp_path / "other", tmp_path, "--name", "Elon_Musk", "--force")
    assert path.read_bytes() == first and len(list((tmp_path / "pictures" / "Elon_Musk").iterdir())) == 6
    assert tiny.left_over(tmp_path) == []


@pytest.fixture
def own(tmp_path):
    """A tar that the user made."""
    tiny.write_pairs(tmp_path / "tars" / "Jeff_Bezos.tar", ["my own picture of jeff bezos"] * 3)
    return tmp_path / "tars" / "Jeff_Bezos.tar"


def test_a_tar_from_elsewhere_is_kept(shards, own, tmp_path, capsys):
    mine = own.read_bytes()
    curate(shards, tmp_path, "--name", "Jeff_Bezos")
    assert own.read_bytes() == mine and f"Jeff_Bezos: kept {own}" in capsys.readouterr().out


def test_force_replaces_a_tar_from_elsewhere(shards, own, tmp_path):
    curate(shards, tmp_path, "--name", "Jeff_Bezos", "--force")
    assert captions_of(own) == ["Jeff Bezos and Elon Musk"]


def test_a_tar_that_was_cut_off_is_made_again(shards, own, tmp_path):
    own.write_bytes(own.read_bytes()[: own.stat().st_size // 2])
    curate(shards, tmp_path, "--name", "Jeff_Bezos")
    assert captions_of(own) == ["Jeff Bezos and Elon Musk"]


# ------------------------------------------------------------------------------------------------------- other sources


def test_pairs_from_a_csv(tmp_path, capsys):
    for i in range(4):
        tiny.write_file(tmp_path / "mine" / f"{i}.jpg", tiny.jpeg(i)[: 300 if i == 2 else None])
    lines = ["image,more,caption", '0.jpg,x,"Elon Musk, on\nstage"', "1.jpg,,a dog", "2.jpg,,elon musk"]
    lines += ["gone.jpg,,elon musk", "3.jpg,,ELON_MUSK", ""]
    (tmp_path / "mine" / "a.csv").write_text("\n".join(lines))
    tars = curate(None, tmp_path, "--csv", tmp_path / "mine" / "a.csv", "--name", "Elon_Musk")
    found = [(caption, image) for _, image, caption in read_tar(tars / "Elon_Musk.tar")]
    assert found == [("Elon Musk, on\nstage", tiny.jpeg(0)), ("ELON_MUSK", tiny.jpeg(3))]
    assert "Elon_Musk: 2 pairs (a: 2), 2 broken" in capsys.readouterr().out


@pytest.fixture
def image_folder(tmp_path):
    """A folder of three pictures of Ann Bo, one with a caption, and one of Cy Do."""
    for name, count in (("Ann_Bo", 3), ("Cy_Do", 1)):
        for i in range(count):
            tiny.write_file(tmp_path / "mine" / name / f"{i}.png", tiny.jpeg(i, kind="PNG"))
    (tmp_path / "mine" / "Ann_Bo" / "1.txt").write_text("a photo of Ann\n")
    (tmp_path / "mine" / "Ann_Bo" / "notes.md").write_text("not a picture")
    return tmp_path / "mine"


def test_pictures_of_an_image_folder_are_named_by_it_or_by_a_text_beside_them(image_folder, tmp_path):
    tars = curate(None, tmp_path, "--image-folder", image_folder, "--name", "Ann_Bo", "Cy_Do")
    assert captions_of(tars / "Ann_Bo.tar") == ["Ann Bo", "a photo of Ann", "Ann Bo"]
    assert captions_of(tars / "Cy_Do.tar") == ["Cy Do"]


def test_pictures_of_an_image_folder_become_jpegs(image_folder, tmp_path):
    tars = curate(None, tmp_path, "--image-folder", image_folder, "--name", "Ann_Bo")
    assert all(Image.open(io.BytesIO(image)).format == "JPEG" for _, image, _ in read_tar(tars / "Ann_Bo.tar"))


def test_the_folder_of_a_single_name_can_be_given_itself(image_folder, tmp_path):
    tars = curate(None, tmp_path / "a", "--image-folder", image_folder, "--name", "Cy_Do")
    alone = curate(None, tmp_path / "b", "--image-folder", image_folder / "Cy_Do", "--name", "Cy_Do")
    assert (alone / "Cy_Do.tar").read_bytes() == (tars / "Cy_Do.tar").read_bytes()


# ------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        (["--csv", "gone.csv"], ["Ann"], "CSV of pairs not found"),
        (["--csv", "bad.csv"], ["Ann"], "is not a CSV with the columns image and caption"),
        (["--image-folder", "gone"], ["Ann"], "image folder not found"),
        (["--image-folder", "empty"], ["Ann"], "names Ann"),
        (["--image-folder", "empty"], ["Ann", "Bob"], "holds no folder Ann, Bob"),
        (["--download", "--metadata-dir", "gone"], ["Ann"], "folder of LAION's metadata not found"),
        (["--laion-dir", "gone"], ["Ann"], "shard folder not found"),
        (["--laion-dir", "empty"], ["Ann"], "holds no shard"),
        (["--laion-dir", "empty", "--known-names", "gone"], ["Ann"], "list of known names not found"),
    ],
    ids=str,
)
def test_sources_that_cannot_be_used(tmp_path, monkeypatch, capfd, source, names, said):
    (tmp_path / "bad.csv").write_text("picture,text\na.jpg,Ann\n")
    (tmp_path / "empty").mkdir()
    source = [word if word.startswith("--") else tmp_path / word for word in source]
    flags = [*source, "--name", *names, "--named-dir", tmp_path / "n", *places(tmp_path)]
    assert said in tiny.failure(monkeypatch, capfd, "a0_create_tar", *flags)
    assert not list(tmp_path.glob("tars/*"))


@pytest.fixture
def fails(shards, tmp_path, monkeypatch, capfd):
    """Run the stage with --force where a good tar is; see that it fails and leaves all files. Returns its line of error."""

    def check(*arguments):
        curate(shards, tmp_path, "--name", "Elon_Musk")
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        flags = ["--name", "Elon_Musk", "--laion-dir", tmp_path / "damaged", "--force", *places(tmp_path), *arguments]
        line = tiny.failure(monkeypatch, capfd, "a0_create_tar", *flags)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before and len(line) < 600
        return line

    return check


@pytest.mark.parametrize(("kind", "said"), [("tar", "not a whole tar"), ("parquet", "not the metadata")])
def test_a_damaged_shard_is_named(fails, tmp_path, kind, said):
    tiny.write_shard(tmp_path / "damaged", 0, ["elon musk", "Elon Musk"])
    path = tmp_path / "damaged" / f"00000.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 5])
    assert said in fails()


def test_a_name_nobody_has_is_told(fails, shards):
    assert "names Nobody_Atall" in fails("--name", "Nobody_Atall", "--laion-dir", shards)


def test_where_all_pictures_are_broken_the_good_tar_stays(fails, tmp_path):
    tiny.write_shard(tmp_path / "damaged", 0, ["elon musk", "Elon Musk"], broken=(0, 1))
    assert "nothing was written" in fails()


def test_pairs_of_one_name_are_written_beside_a_name_nobody_has(shards, tmp_path, monkeypatch, capfd):
    flags = ["--laion-dir", shards, *places(tmp_path), "--name", "Elon_Musk", "Nobody_Atall"]
    line = tiny.failure(monkeypatch, capfd, "a0_create_tar", *flags)
    assert "Nobody_Atall" in line and "Elon" not in line.split(";")[0].split("names")[1]
    assert (tmp_path / "tars" / "Elon_Musk.tar").is_file()


@pytest.mark.parametrize("flag", ["--tar-dir", "--image-dir"])
def test_a_folder_that_cannot_be_written_is_named(shards, tmp_path, monkeypatch, capfd, flag):
    (tmp_path / "file").write_text("")
    flags = ["--name", "Elon_Musk", "--laion-dir", shards, *places(tmp_path), flag, tmp_path / "file" / "below"]
    assert "cannot write" in tiny.failure(monkeypatch, capfd, "a0_create_tar", *flags)
    assert tiny.left_over(tmp_path) == []


def test_an_image_bomb_is_a_broken_picture(tmp_path, capsys):
    out = io.BytesIO()
    Image.new("1", (30000, 30000)).save(out, "PNG")  # a hundred kB that would decode to 900 million pixels
    tiny.write_shard(tmp_path / "s", 0, ["Ann", "Ann again"])
    members = {"000000000.jpg": out.getvalue(), "000000001.jpg": tiny.jpeg(1)}
    tiny.write_tar(tmp_path / "s" / "00000.tar", members)
    curate(tmp_path / "s", tmp_path, "--name", "Ann")
    assert "Ann: 1 pairs (00000: 1), 1 broken" in capsys.readouterr().out


def test_a_distributor_that_is_not_installed_is_named(shards, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(tiny.sys.modules, "ray.util.joblib", None)
    flags = ["--name", "Elon_Musk", "--laion-dir", shards, *places(tmp_path), "--distributor", "ray"]
    assert "distributor ray is not installed" in tiny.failure(monkeypatch, capfd, "a0_create_tar", *flags)
