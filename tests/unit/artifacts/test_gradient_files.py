"""Gradient files: plain dicts with a fingerprint, where they lie, and when they are valid."""

import shlex

import pytest
import tiny
import torch

from slug import cli, files, protocols
from slug.artifacts import gradient_files, retain_gradient
from slug.artifacts.gradient_files import GradientFiles
from slug.core import gradients, losses, variants
from slug.data.pairs import some
from slug.errors import SlugError
from slug.settings import Sources

MARK = {"model": "a", "data": "b"}
GRADS = {"w": torch.tensor([1.0, 2.0])}

# ------------------------------------------------------------------------------------------------------------ one file


@pytest.fixture
def path(tmp_path):
    """A gradient file."""
    path = tmp_path / "forget_grads.pt"
    gradient_files.save(path, GRADS, {**MARK, "seconds": 1.5})
    return path


def test_a_gradient_file_is_a_plain_dict(path):
    assert tiny.same_tensors(torch.load(path, weights_only=True), GRADS)


def test_a_gradient_file_is_read_as_it_was_written(path):
    assert tiny.same_tensors(gradient_files.load(path, MARK, "remake"), GRADS)


@pytest.mark.parametrize(("mark", "valid"), [(MARK, True), ({**MARK, "data": "c"}, False)])
def test_a_file_is_valid_for_its_fingerprint_only(path, mark, valid):
    assert gradient_files.is_valid(path, mark) is valid


def test_a_stale_file_is_refused_with_what_differs(path):
    with pytest.raises(SlugError, match=r"stale \(data differ.*remake"):
        gradient_files.load(path, {**MARK, "data": "c"}, "remake")


def test_a_damaged_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-10])
    assert not gradient_files.is_valid(path, MARK)
    with pytest.raises(SlugError, match=r"damaged.*remake"):
        gradient_files.load(path, MARK, "remake")


def test_a_missing_file_is_refused(path):
    path.unlink()
    assert not gradient_files.is_valid(path, MARK)
    with pytest.raises(SlugError, match=r"no gradients at.*remake"):
        gradient_files.load(path, MARK, "remake")


def test_a_gradient_that_is_not_finite_is_refused(tmp_path):
    gradient_files.save(tmp_path / "a.pt", {"w": torch.tensor([torch.nan])}, MARK)
    with pytest.raises(SlugError, match=r"NaN or infinity; make it again with: remake"):
        gradient_files.load(tmp_path / "a.pt", MARK, "remake")


# --------------------------------------------------------------------------------------------------- files of one model


@pytest.fixture
def made(clip, tmp_path):
    """(...) -> GradientFiles of Noto and Blob, whose sets lie in the folder."""
    for seed, name in enumerate(("Noto", "Blob"), 5):
        tiny.write_pairs(tmp_path / f"{name}.tar", [f"a {name} {i}" for i in range(seed)])
    # Of the first batch of four one pair is left without Noto, of the second three; the third is short.
    tiny.write_pairs(tmp_path / "retain.tar", [f"a {'Noto' if i in (1, 2, 3, 6) else 'palm'} {i}" for i in range(10)])

    def make(*names, **how):
        sources = Sources(celeb_name=names, tar_dir=str(tmp_path), train_data=str(tmp_path / "retain.tar"))
        return GradientFiles(clip, sources, str(tmp_path / "results"), 4, **how)

    return make


def test_files_lie_in_a_folder_for_each_name(made, clip, tmp_path):
    found = made("Noto", "Blob")
    found.write(variants.get("slug"), {})
    for name in ("Noto", "Blob"):
        folder = tmp_path / "results" / "grads" / f"{name}_{clip.tag}"
        assert {p.name for p in folder.glob("*.pt")} == {"forget_grads.pt", "train_grads.pt"}


def test_one_retain_gradient_serves_all_names_by_the_published_protocol(made):
    found, variant = made("Noto", "Blob", protocol=protocols.PAPER), variants.get("slug")
    found.write(variant, {})
    targets = {found.path(name, "train", variant).resolve() for name in ("Noto", "Blob")}
    assert targets == {found.retain_folder.resolve() / "train_grads.pt"}
    assert found.load("Noto", variant).left_out == ["Blob", "Noto"]


@pytest.mark.parametrize("kind", ["slug", "calc_importance"])
def test_a_retain_gradient_is_the_one_of_fixed_batches_without_the_name(made, kind):
    """A plain second computation: batch by batch in file order, each without the pairs that say the name."""
    found, variant = made("Noto", "Blob"), variants.get(kind)
    found.write(variant, {})
    pairs = found.pairs(found.retain_tar, [], 0)
    batches = [b.tolist() for b in torch.arange(len(pairs.captions)).split(found.batch_size)]
    batches = [b for b in batches if len(b) == found.batch_size]
    left = [[i for i in b if "noto" not in pairs.captions[i].lower().split()] for b in batches]
    assert left != batches
    sums, count = {}, 0
    for rows in left:
        if len(rows) > 1:
            part, count = some(pairs, rows), count + 1
            grads, _ = gradients.compute(found.clip, part, losses.contrastive, batch_size=len(rows), square=variant.squared)
            sums = {n: sums.get(n, 0) + g.double() for n, g in grads.items()}
    for n, g in found.load("Noto", variant).retain.items():
        plain = (sums[n] / count).float()
        assert (g - plain).abs().max() <= 1e-5 * plain.abs().max(), n


def test_names_without_pairs_in_the_retain_set_have_the_whole_gradient(made):
    found, variant = made("Noto"), variants.get("slug")
    found.write(variant, {})
    rows = []
    pairs = found.pairs(found.retain_tar, [], 0)
    whole = gradient_files.load(found.retain_folder / "train_grads.pt", {"left_out": []}, "")
    about = files.read_object(found.retain_folder / "train_grads.json")
    assert tiny.same_tensors(gradients.without(found.clip, pairs, rows, whole, about)[0], whole)


def test_a_name_of_all_retain_pairs_is_refused(made):
    found, variant = made("Noto"), variants.get("slug")
    found.write(variant, {})
    pairs = found.pairs(found.retain_tar, [], 0)
    whole = gradient_files.load(found.retain_folder / "train_grads.pt", {"left_out": []}, "")
    about = files.read_object(found.retain_folder / "train_grads.json")
    with pytest.raises(SlugError, match="no retain pairs are left"):
        gradients.without(found.clip, pairs, range(len(pairs.captions)), whole, about)


def test_valid_files_are_kept(made, capsys):
    for expected in (0, 3):
        made("Noto", "Blob").write(variants.get("slug"), {})
        assert capsys.readouterr().out.count("valid, kept") == expected


def test_files_are_written_again_where_forced(made, capsys):
    for _ in range(2):
        capsys.readouterr()
        made("Noto").write(variants.get("slug"), {}, force=True)
    assert "valid, kept" not in capsys.readouterr().out


def test_a_gradient_does_not_depend_on_other_names_of_the_call(made):
    variant = variants.get("slug_w")
    found = []
    for names in (("Noto",), ("Blob", "Noto")):
        written = made(*names)
        written.write(variant, {}, force=True)
        found.append(written.load("Noto", variant).forget)
    assert all(torch.allclose(found[0][n], found[1][n], rtol=1e-4, atol=1e-9) for n in found[0])


def test_a_retain_gradient_does_not_depend_on_other_names_of_the_call(made):
    variant, found = variants.get("slug"), []
    for names in (("Noto",), ("Blob", "Noto")):
        made(*names).write(variant, {}, force=True)
        found.append(made(*names).load("Noto", variant).retain)
    assert tiny.same_tensors(*found)


def test_a_retain_gradient_that_holds_pairs_of_the_name_is_refused(made):
    made("Blob").write(variants.get("slug"), {})
    found = made("Blob", "Noto")
    source = found.path("Blob", "train", variants.get("slug"))
    found.folder("Noto").mkdir(parents=True)
    for end in (".pt", ".json"):
        (found.folder("Noto") / f"train_grads{end}").symlink_to(source.resolve().with_suffix(end))
    with pytest.raises(SlugError, match=r"pairs that show Noto, .*; make it again with: python src/clip/a1_compute_grad.py"):
        found.load("Noto", variants.get("slug"))


@pytest.mark.parametrize("encoder", ["vision", "language"])
def test_one_encoders_files_lie_apart_and_hold_that_encoder_only(made, clip, encoder):
    found = made("Noto", encoder=encoder)
    found.write(variants.get("slug"), {})
    assert found.retain_folder.name == f"retain-{encoder}_{clip.tag}"
    assert {clip.tower(n) for n in found.load("Noto", variants.get("slug")).forget} == {encoder}


def test_files_of_another_batch_size_are_stale(made, clip, tmp_path):
    found = made("Noto")
    found.write(variants.get("slug"), {})
    other = GradientFiles(clip, found.sources, found.result_dir, 2)
    with pytest.raises(SlugError, match=r"stale \(batch_size differ"):
        other.load("Noto", variants.get("slug"))


def test_one_tar_is_of_one_name(made, tmp_path, clip):
    sources = Sources(celeb_name=("Noto", "Blob"), forget_data=str(tmp_path / "Noto.tar"))
    with pytest.raises(SlugError, match="--forget-data is the tar of ONE name"):
        GradientFiles(clip, sources, str(tmp_path), 4).tar("Noto")


# ------------------------------------------------------------------------------------------- what a record depends on


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("slug", {"retain": True, "Noto": True, "Blob": False}),
        ("slug_w", {"retain": True, "Noto": True, "Blob": False}),
        ("slug_ws", {"retain": True, "Noto": True, "Blob": True}),
    ],
)
def test_a_record_is_stale_where_a_set_behind_its_gradient_changed(made, tmp_path, method, changes):
    found, variant = made("Noto", "Blob"), variants.get(method)
    written = found.path("Noto", "forget", variants.get("slug_ws"))
    gradient_files.save(written, {}, {"spared": {"Blob": "any"}})
    for name, changed in changes.items():
        before, content = found.hashes("Noto", variant), (tmp_path / f"{name}.tar").read_bytes()
        (tmp_path / f"{name}.tar").write_text("other")
        assert (found.hashes("Noto", variant) != before) is changed, name
        (tmp_path / f"{name}.tar").write_bytes(content)


def test_a_missing_retain_set_is_refused(made, tmp_path):
    found = made("Noto")
    (tmp_path / "retain.tar").unlink()
    with pytest.raises(SlugError, match="retain set not found"):
        found.hashes("Noto", variants.get("slug"))


# ------------------------------------------------------------------------------------------------- damaged and odd files


def test_a_file_whose_content_changed_is_refused_and_made_again(made, capsys):
    found, variant = made("Noto"), variants.get("slug")
    found.write(variant, {})
    path = found.path("Noto", "forget", variant)
    grads = torch.load(path, weights_only=True)
    torch.save({n: -3 * g for n, g in grads.items()}, path)
    with pytest.raises(SlugError, match=r"damaged: its sha256 .* make it again with: python src/clip/a1_compute_grad.py"):
        found.load("Noto", variant)
    made("Noto").write(variant, {})
    assert all(torch.equal(g, grads[n]) for n, g in found.load("Noto", variant).forget.items())


ODD = ["[]", "null", "5", "{}", "[" * 100_000, '{"model": [1]}', '{"sha256": 5}', "1" * 5000]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_an_odd_fingerprint_is_refused_and_not_valid(made, text):
    found, variant = made("Noto"), variants.get("slug")
    found.write(variant, {})
    for side in ("forget", "train"):
        path = found.path("Noto", side, variant).with_suffix(".json")
        before = path.read_text()
        path.write_text(text)
        assert not gradient_files.is_valid(found.path("Noto", side, variant), {"square": False})
        with pytest.raises(SlugError):
            found.load("Noto", variant)
        with pytest.raises(SlugError, match="make it again with: "):
            found.seconds("Noto", variant, side)
        path.write_text(before)


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"a": torch.ones(2, dtype=torch.long)}, 5])
def test_a_file_of_other_things_than_gradients_is_refused(tmp_path, content):
    gradient_files.save(tmp_path / "a.pt", content, MARK)
    with pytest.raises(SlugError, match="holds no gradients"):
        gradient_files.load(tmp_path / "a.pt", MARK, "remake")


def test_a_file_is_the_same_to_the_byte_whoever_wrote_it(tmp_path):
    for file in ("a", "b"):
        gradient_files.save(tmp_path / f"{file}.pt", {"w": torch.ones(3)}, MARK)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


# ---------------------------------------------------------------------------------------------------- names one by one


def test_names_one_after_the_other_stay_valid(made):
    variant, before = variants.get("slug"), None
    for name in ("Noto", "Blob", "Noto"):
        made(name).write(variant, {})
        now = made("Noto").load("Noto", variant).retain
        assert before is None or all(torch.equal(now[n], g) for n, g in before.items())
        before = {n: g.clone() for n, g in now.items()}
    assert made("Blob").load("Blob", variant).left_out == ["Blob"]
    made("Noto", "Blob").write(variant, {})
    assert {tuple(made(n).load(n, variant).left_out) for n in ("Noto", "Blob")} == {("Blob",), ("Noto",)}
    assert tiny.same_tensors(made("Noto").load("Noto", variant).retain, before)


def test_two_calls_at_the_same_time_do_not_take_each_others_file(tmp_path):
    mark, plain = {"model": "m", "left_out": ["a"]}, tmp_path / "train_grads.pt"
    where = retain_gradient.path
    assert where(plain, mark) == where(plain, mark, claim=True) == plain
    other = where(plain, mark | {"left_out": ["b"]}, claim=True)
    assert other != plain and other.name.startswith("train_grads-")
    gradient_files.save(plain, {}, mark)
    assert where(plain, mark, claim=True) == plain and where(plain, mark | {"left_out": ["b"]}) == other
    assert where(plain, {"model": "other", "left_out": ["b"]}) == plain  # stale in any case: it is replaced


def test_what_is_replaced_by_other_weights_is_said(made, clip, capsys):
    made("Noto").write(variants.get("slug"), {})
    next(iter(clip.parameters.values())).data.mul_(1.5)
    capsys.readouterr()
    made("Noto").write(variants.get("slug"), {})
    assert capsys.readouterr().out.count(f"was of other weights of {clip.label}, and is replaced") == 2


# -------------------------------------------------------------------------------------------------------------- remedies


@pytest.mark.parametrize("encoder", ["both", "vision", "language"])
def test_the_remedy_is_a_command_that_parses_to_this_run(made, clip, tmp_path, encoder):
    flags = {
        "model": "local-dir:my models/a",
        "pretrained": "",
        "clip_model_id": "my models/b",
        "device": "cpu",
        "workers": 0,
    }
    sources = Sources(celeb_name=("Alien Monster", "O'Neil"), tar_dir="my tars", train_data="a;b.tar")
    found = GradientFiles(clip, sources, "my results", 4, encoder=encoder, flags=flags)
    python, script, *argv = shlex.split(found.remedy(variants.get("slug_w")))
    settings = gradient_files.STAGES[encoder][1]
    made = cli.values(cli.parse("", settings, argv))
    assert python == "python" and (files.ROOT / script).is_file()
    assert made["celeb_name"] == ("Alien Monster", "O'Neil") and made["workers"] == 0
    assert (made["tar_dir"], made["train_data"], made["result_dir"]) == ("my tars", "a;b.tar", "my results")
    assert made["clip_model_id"] == "my models/b" and made["batch_size"] == 4 and made["device"] == "cpu"
    assert made["unlearn_method"] == ("calc_grad_w" if encoder == "vision" else ("calc_grad_w",))


def test_the_remedy_for_a_missing_forget_set_is_quoted(clip, tmp_path):
    found = GradientFiles(clip, Sources(celeb_name=("Alien Monster",), tar_dir=str(tmp_path / "my tars")), str(tmp_path), 4)
    with pytest.raises(SlugError) as err:
        found.tar("Alien Monster")
    argv = shlex.split(str(err.value).split("make it with: ")[1])
    assert argv[1:] == ["src/clip/a0_create_tar.py", "--name", "Alien Monster", "--tar-dir", str(tmp_path / "my tars")]
