"""The command slug: whole runs, files that it writes, and refusals in one line with exit code 2."""

import json
import sys
from pathlib import Path

import own_pictures
import pytest
import tiny

from slug import commands
from slug.artifacts import deltas


@pytest.fixture(scope="module")
def work(taught_clip, tiny_world, tmp_path_factory):
    """A finished `slug forget`, with relative paths: model, photos, names.txt, out/."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "model").symlink_to(taught_clip / "open_clip")
    own_pictures.write(tiny_world, folder / "photos")
    (folder / "names.txt").write_text("\n".join(own_pictures.classes(tiny_world)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        commands.run(forget(tiny_world))
    return folder


def forget(world, *more, name="Alien", out="out"):
    data = ["--images", "photos", "--retain", own_pictures.retain(world), "--classes", "names.txt", "--out", out]
    return ["forget", "--model", "model", "--device", "cpu", "--name", name, *data, "--evaluations", "4", *more]


def test_forget_writes_a_delta_a_report_plots_and_a_record(work):
    found = {p.name for p in (work / "out").iterdir()}
    plots = {f"Alien-{kind}.png" for kind in ("tradeoff", "steps", "pareto", "pictures")}
    assert found == {"Alien.delta.safetensors", "Alien.json", "Alien.html"} | plots
    record = json.loads((work / "out" / "Alien.json").read_text())
    assert record["splits"]["test"]["slug"]["forget_acc1"] == 0 and not tiny.left_over(work)


def test_the_other_commands_take_what_forget_wrote(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    delta = "out/Alien.delta.safetensors"
    commands.run(["apply", "--delta", delta, "--model-dir", "model", "--out", "edited"])
    commands.run(["list", "--model-dir", "edited"])
    assert "Alien.delta.safetensors: " in capsys.readouterr().out
    commands.run(["revert", "--delta", delta, "--model-dir", "edited", "--out", "back"])
    name = "open_clip_model.safetensors"
    assert tiny.same_tensors(*(tiny.load_file(work / f / name) for f in ("model", "back")))
    commands.run(["report", "--delta", delta, "--out", "again.html"])
    assert "Alien" in (work / "again.html").read_text()
    picture = sorted(str(p) for p in (work / "photos").iterdir())[0]
    commands.run(
        [
            "compare",
            "--model",
            "model",
            "--device",
            "cpu",
            "--delta",
            delta,
            "--pictures",
            picture,
            "--names",
            "Alien",
            "Ant",
            "--out",
            "c.png",
        ]
    )
    assert "before" in capsys.readouterr().out and (work / "c.png").is_file()
    if hasattr(deltas, "seal"):
        commands.run(["seal", "--model-dir", "edited", "--out", "sealed"])
        assert not (work / "sealed" / "slug_edits").exists()


def test_methods_are_listed(capsys):
    commands.run(["methods"])
    said = capsys.readouterr().out
    assert "slug_ws" in said and "SSD (Foster et al., AAAI 2024)" in said


def test_without_a_command_the_commands_are_explained(capsys):
    commands.run([])
    said = capsys.readouterr().out
    assert all(f"slug {name}" in said for name in commands.COMMANDS)


def refused(monkeypatch, capfd, argv):
    monkeypatch.setattr(sys, "argv", ["slug", *argv])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        commands.main()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--images", "nowhere"], "pictures of Alien not found"),
        (["--images", "few"], "Alien has 3 source images, and at least 10 are needed"),
        (["--images", "same"], "all 12 pictures of Alien are nearly the same picture"),
        (["--images", "broken"], "none of the 12 pictures of the pictures of Alien can be decoded"),
        (["--images", "empty"], "no picture found"),
        (["--retain", "nowhere.tar"], "retain set not found"),
        (["--retain", "photos"], "the retain set has 0 pairs with captions"),
        (["--retain", "full.tar"], "60 of the 60 captions of the retain set name Alien"),
        (["--model", "few"], "is not a model folder"),
        (["--model", "ViT-B-33", "--pretrained", "x"], "open_clip has no model"),
        (["--evaluate", "x"], "--evaluate takes NAME=PATH"),
        (["--name", "A", "B"], "2 names need as many --images"),
        (["--evaluations", "0"], "--evaluations: 0: it must be a whole number of at least 1"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_refusals_are_one_line_and_write_nothing(work, tiny_world, monkeypatch, capfd, more, said):
    monkeypatch.chdir(work)
    own_pictures.write(tiny_world, work / "few", count=3)
    own_pictures.nearly_the_same(sorted((work / "photos").iterdir())[0], work / "same", 12)
    for i in range(12):
        tiny.write_file(work / "broken" / f"{i}.jpg", b"no picture")
    Path("empty").mkdir(exist_ok=True)
    tiny.write_pairs(work / "full.tar", ["Alien"] * 60)
    assert said in refused(monkeypatch, capfd, forget(tiny_world, *more, out="nothing"))
    assert not list(Path("nothing").glob("*"))


def test_an_unknown_command_is_refused(monkeypatch, capfd):
    assert "there is no command 'forgot'; choose from forget" in refused(monkeypatch, capfd, ["forgot"])
