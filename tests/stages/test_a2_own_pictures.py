"""a2 with own pictures: any concept, without evaluation sets; and what it says of a name that no evaluation set has."""

import json

import own_pictures
import pytest
import tiny


@pytest.fixture
def flags(taught_clip, tiny_world, tmp_path):
    images = own_pictures.write(tiny_world, tmp_path / "mine" / "Alien")
    classes = tmp_path / "names.txt"
    classes.write_text("\n".join(own_pictures.classes(tiny_world)))
    how = ["--train-data", own_pictures.retain(tiny_world), "--result-dir", str(tmp_path / "r"), "--workers", "0"]
    model = ["--model", f"local-dir:{taught_clip / 'open_clip'}", "--device", "cpu", "--evaluations", "3"]
    return ["--images", images, "--classes", str(classes), *how, *model]


@pytest.mark.parametrize("spelling", ["--name", "--celeb-name"])
def test_own_pictures_need_no_gradients_and_no_evaluation_sets(flags, tmp_path, spelling):
    tiny.run("a2_unlearn_slug", spelling, "Alien", *flags)
    out = tmp_path / "r" / "clip" / "own"
    assert {"Alien.delta.safetensors", "Alien.html", "Alien.json"} <= {p.name for p in out.iterdir()}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--images", "a", "b"], "1 names need as many --images"),
        (["--evaluate", "x=y"], "labelled evaluation set not found"),
    ],
)
def test_refusals(flags, monkeypatch, capfd, more, said):
    assert said in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", "--name", "Alien", *flags, *more)


def test_classes_and_evaluate_go_with_images(monkeypatch, capfd):
    said = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", "--name", "A", "--classes", "x")
    assert "--classes and --evaluate need --images" in said


def test_the_rule_of_the_stage_holds_for_own_pictures(flags, tmp_path):
    tiny.run("a2_unlearn_slug", "--name", "Alien", *flags, "--max-forget", 0.1, "--sigmas", 1)
    record = json.loads((tmp_path / "r" / "clip" / "own" / "Alien.json").read_text())
    assert record["rule"] == {"max_forget": 0.1, "sigmas": 1.0}
