"""a1_compute_grad.py: gradient files."""

import json
import re
import shutil
import tarfile

import pytest
import tiny
import torch
from tiny_run import NAMES

from slug.core import gradients, losses, preconditioning
from slug.data.images import decode
from slug.data.names import Matcher, plain_name
from slug.data.pairs import Pairs, load_pairs, read_tar, some


def test_gradients_lie_where_users_look_for_them(done):
    retain = done.results / "grads" / "retain_open_clip_local" / "train_grads.pt"
    assert retain.is_file() and not retain.is_symlink()
    for name in NAMES:
        folder = done.results / "grads" / f"{name}_open_clip_local"
        assert {p.name for p in folder.iterdir()} == {f"{s}_grads.{k}" for s in ("forget", "train") for k in ("pt", "json")}
        assert not (folder / "train_grads.pt").is_symlink()
        assert json.loads((folder / "train_grads.json").read_text())["left_out"] == [plain_name(name)]
        grads = torch.load(folder / "forget_grads.pt", weights_only=True)
        assert type(grads) is dict and all(t.dtype == torch.float32 for t in grads.values())
        record = json.loads((folder / "forget_grads.json").read_text())
        assert record["settings"]["seed"] == 0 and record["versions"]["torch"] and record["loss_name"] == "cosine_embedding"
        assert record["pairs"] == len(read_tar(done.folder / "tars" / f"{name}.tar"))


def test_one_process_gives_the_gradients_of_two_and_workers_change_nothing(done, quick, taught_clip):
    run = done.another("one-process", link=False)
    tiny.run("a1_compute_grad", *run.a1(), "--workers", "2")
    for path in (done.results / "grads").rglob("*.pt"):
        two, one = (torch.load(p, weights_only=True) for p in (path, run.results / path.relative_to(done.results)))
        assert two.keys() == one.keys()
        for name, value in two.items():
            # torchrun gives each process one thread, and float32 matrix products depend on the number of threads
            assert torch.allclose(value, one[name], rtol=1e-6, atol=1e-6 * value.abs().max().item()), name
    found, wanted = (
        json.loads((r.results / "grads/Alien_open_clip_local/forget_grads.json").read_text()) for r in (run, done)
    )
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9) and found["pairs"] == wanted["pairs"]
    assert found["model"] == wanted["model"] and found["data"] == wanted["data"]


def test_a_retain_gradient_is_of_unchanged_captions_in_fixed_batches_without_the_forget_name(done, taught_clip):
    clip = tiny.load(taught_clip)
    kept = {}
    with tarfile.open(done.world / "laion" / "laion400m" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith((".jpg", ".txt")):
                kept.setdefault(member.name[:-4], []).append(tar.extractfile(member).read())
    everything = [(image, caption.decode()) for image, caption in kept.values()]
    images, rows = decode([image for image, _ in everything], clip.transform)
    pairs = Pairs(images, [everything[i][1] for i in rows], [str(i) for i in rows], 0)
    own = [bool(re.search(r"\balien\b", c.lower().replace("-", " "))) for c in pairs.captions]
    batches = [[i for i in range(start, start + 16) if not own[i]] for start in range(0, len(own) - 15, 16)]
    assert any(own) and any(len(b) < 16 for b in batches)
    made = [gradients.compute(clip, some(pairs, b), losses.contrastive, batch_size=16)[0] for b in batches if len(b) > 1]
    found = torch.load(done.results / "grads" / "Alien_open_clip_local" / "train_grads.pt", weights_only=True)
    for name, value in found.items():
        wanted = torch.stack([m[name] for m in made]).mean(0)
        assert torch.allclose(value, wanted, rtol=1e-4, atol=1e-6 * wanted.abs().max().item()), name


def test_a_preconditioned_gradient_leaves_out_its_own_names_pairs_alone(done, taught_clip):
    """Of the names of one call each is preconditioned by the pairs of all the others, too."""
    run = done.another("preconditioned", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "calc_grad_w")
    clip, train = tiny.load(taught_clip), run.world / "laion" / "laion400m" / "00000.tar"
    kept = []
    for name in NAMES:
        where = run.results / "grads" / f"{name}_open_clip_local"
        plain, found = (torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_w"))
        about = json.loads((where / "forget_grads_w.json").read_text())
        assert about["retain_left_out"] == [plain_name(name)]
        pairs = load_pairs(train, clip.transform, leave_out=Matcher(about["retain_left_out"]))
        kept.append(len(pairs.captions))
        moments = preconditioning.moments(clip, pairs)
        assert about["not_preconditioned"] == sorted(set(plain) - set(moments))
        wanted = preconditioning.preconditioned(plain, moments)
        assert all((found[n] - wanted[n]).norm() <= 1e-3 * wanted[n].norm() for n in plain)
    every = load_pairs(train, clip.transform)
    both = load_pairs(train, clip.transform, leave_out=Matcher([plain_name(n) for n in NAMES]))
    assert len(both.captions) < min(kept) and max(kept) < len(every.captions)


def test_a_preconditioned_gradient_can_spare_the_other_names(done, taught_clip, monkeypatch, capfd):
    """By calc_grad_ws the other names' forget sets count beside the retain set; where one of them changes it is stale."""
    run = done.another("spared", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    shutil.copytree(run.folder / "tars", run.results / "tar_files")
    given = ["--tar-dir", run.results / "tar_files", "--unlearn-method"]
    tiny.run("a1_compute_grad", *run.a1(), *given, "calc_grad_ws")
    clip, train = tiny.load(taught_clip), run.world / "laion" / "laion400m" / "00000.tar"
    for name, other in (NAMES, NAMES[::-1]):
        where = run.results / "grads" / f"{name}_open_clip_local"
        plain, found = (torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_ws"))
        assert list(json.loads((where / "forget_grads_ws.json").read_text())["spared"]) == [other]
        retain = load_pairs(train, clip.transform, leave_out=Matcher([plain_name(name)]))
        also = load_pairs(run.results / "tar_files" / f"{other}.tar", clip.transform)
        total, more = preconditioning.moments(clip, retain), preconditioning.moments(clip, also)
        wanted = preconditioning.preconditioned(plain, {n: (m + more[n][0], axis) for n, (m, axis) in total.items()})
        assert all((found[n] - wanted[n]).norm() <= 1e-3 * wanted[n].norm() for n in plain)
    redo = [*run.a2(), *given, "slug_ws", "--celeb-name", NAMES[0], "--layer", "visual.proj", "--step", "0.1"]
    tiny.run("a2_unlearn_slug", *redo)
    assert run.record(NAMES[0])["method"] == "slug_ws"
    shutil.copy(run.results / f"tar_files/{NAMES[0]}.tar", run.results / f"tar_files/{NAMES[1]}.tar")
    line = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *redo)
    assert "forget_grads_ws.pt is stale (spared differ" in line


@pytest.mark.parametrize("sign", [-1, 1])
def test_gradients_of_the_published_code_are_taken_with_their_sign_changed(done, quick, tmp_path, capsys, sign):
    run = done.another("adopted", link=False) if sign < 0 else done.another("adopted-as-is", link=False)
    made, theirs = done.results / "grads" / "Alien_open_clip_local", tmp_path / "theirs"
    theirs.mkdir()
    forget, train = (torch.load(made / f"{side}_grads.pt", weights_only=True) for side in ("forget", "train"))
    torch.save({n: sign * g for n, g in forget.items()}, theirs / "forget_grads_final.pt")
    torch.save(train, theirs / "train_grads_samples_80.pt")
    one = [*run.a1(), "--celeb-name", "Alien"]
    tiny.run("a1_compute_grad", *one, "--published", theirs)
    assert capsys.readouterr().out.count("with its sign changed") == (sign < 0)
    folder = run.results / "grads" / "Alien_open_clip_local"
    found = torch.load(folder / "forget_grads.pt", weights_only=True)
    assert all(torch.equal(found[n], g) for n, g in forget.items())
    about = json.loads((folder / "forget_grads.json").read_text())
    assert (about["published"], about["negated"]) == ("forget_grads_final.pt", sign < 0)
    tiny.run("a2_unlearn_slug", *one, *run.evaluation, "--evaluations", "2", "--layer", "visual.proj")
    assert run.record("Alien")["step"] > 0
