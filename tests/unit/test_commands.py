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


@pytest.mark.parametrize(("argument", "value", "said"), own_pictures.REFUSED)
def test_refusals_are_one_line_and_write_nothing(work, tiny_world, monkeypatch, capfd, argument, value, said):
    monkeypatch.chdir(work)
    own_pictures.write_faults(tiny_world, work, monkeypatch)
    assert said in refused(monkeypatch, capfd, forget(tiny_world, f"--{argument}", value, out="nothing"))
    assert not list(Path("nothing").glob("*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--evaluate", "x"], "--evaluate takes NAME=PATH"),
        (["--name", "A", "B"], "2 names need as many --images"),
        (["--evaluations", "0"], "--evaluations: 0: it must be a whole number of at least 1"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_are_refused_in_one_line(work, tiny_world, monkeypatch, capfd, more, said):
    monkeypatch.chdir(work)
    assert said in refused(monkeypatch, capfd, forget(tiny_world, *more, out="none"))
    assert not Path("none").exists()


@pytest.mark.parametrize("flag", ["--images", "--retain", "--name", "--model"])
def test_a_flag_without_which_nothing_can_be_forgotten_is_named(work, tiny_world, monkeypatch, capfd, flag):
    monkeypatch.chdir(work)
    whole = forget(tiny_world, out="none")
    at = whole.index(flag)
    assert flag in refused(monkeypatch, capfd, whole[:at] + whole[at + 2 :])
    assert not Path("none").exists()


def test_a_name_that_the_model_does_not_recognise_is_said_in_one_line(work, tiny_world, monkeypatch, capfd):
    monkeypatch.chdir(work)
    monkeypatch.setattr(commands, "write", lambda edit, out: None)  # its plots take longer than all else
    commands.run(forget(tiny_world, name="Zorblat", out="unknown"))
    said = capfd.readouterr().out.splitlines()
    (line,) = [x for x in said if x.startswith("note: the unedited model recognises")]
    assert "0 of 14 held-out pictures as Zorblat" in line and "it says alien (" in line
    assert f"  {line}" in said  # once more beside the figures


def test_an_unknown_command_is_refused(monkeypatch, capfd):
    assert "there is no command 'forgot'; choose from forget" in refused(monkeypatch, capfd, ["forgot"])
