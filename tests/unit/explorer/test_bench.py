"""What the explorer asks of a model, without a page."""

import pytest
import tiny
from explorer_world import NAMES, write_delta
from PIL import Image

import slug
from slug.errors import SlugError
from slug.explorer import __main__, samples
from slug.explorer.bench import STRENGTHS, Bench
from slug.explorer.samples import Picture


@pytest.fixture(scope="module")
def bench(explored, tiny_clip):
    return Bench(str(tiny_clip / "open_clip"), [str(explored / "results")])


def test_a_bench_finds_the_edits_that_fit_and_names_the_others(explored, bench, tiny_clip, tmp_path):
    assert list(bench.edits) == ["Alien: text_projection", "ant: visual.proj"] and not bench.left_out
    assert bench.forgotten(list(bench.edits)) == {"alien", "ant"} and not bench.draws
    for path in (explored / "results").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tiny.write_random_clip(tmp_path / "other", seed=1)
    write_delta(tmp_path, tiny.load(tmp_path / "other"), "owl", "visual.proj")
    found = Bench(str(tiny_clip / "open_clip"), [str(tmp_path)])
    assert len(found.edits) == 2 and list(found.left_out) == ["m-owl.delta.safetensors"]
    with pytest.raises(SlugError, match=r"none of 1 deltas was made for .* other weights"):
        Bench(str(tiny_clip / "open_clip"), [str(tmp_path / "m-owl.delta.safetensors")])


@pytest.mark.parametrize(
    "folder, results, said",
    [
        ("nowhere", "results", "model folder not found: .*nowhere"),
        ("results", "results", "is not a model folder"),
        ("open_clip", "nowhere", "results folder not found|not found: .*nowhere"),
        ("open_clip", "faces", "holds no file"),
    ],
)
def test_bad_folders_are_one_line(explored, tiny_clip, folder, results, said):
    place = tiny_clip / folder if folder == "open_clip" else explored / folder
    with pytest.raises(SlugError, match=said) as err:
        Bench(str(place), [str(explored / results)])
    assert "\n" not in str(err.value)


def test_answers_are_those_of_the_scaled_edits_together(explored, bench, tiny_clip):
    pictures = [p.path for p in samples.pictures(explored / "faces")][:6]
    strengths = {"ant: visual.proj": 0.5, "Alien: text_projection": 2.0}
    model = slug.load(str(tiny_clip / "open_clip"))
    ant, alien = (slug.load_edit(str(explored / "results" / f"m-{n}.delta.safetensors")) for n in ("ant", "Alien"))
    plain = model.classify(pictures, NAMES)
    assert bench.answers({}, pictures, NAMES) == plain == bench.answers(dict.fromkeys(strengths, 0.0), pictures, NAMES)
    with (ant.scaled(0.5) + alien.scaled(2.0)).applied(model):
        wanted = model.classify(pictures, NAMES)
    assert bench.answers(strengths, pictures, NAMES) == wanted != plain
    assert bench.answers({}, [Image.open(pictures[0])], NAMES) == plain[:1]
    assert bench.answers({}, [], NAMES) == []


def test_the_curve_counts_pictures_of_forgotten_and_of_other_names(explored, bench):
    found = samples.pictures(explored / "faces")
    points = bench.curve(["ant: visual.proj"], found, NAMES)
    assert [p.strength for p in points] == list(STRENGTHS) and STRENGTHS[0] == 0 and STRENGTHS[-1] == 2
    assert {(p.n_recognised, p.n_retained) for p in points} == {(10, 30)}
    for point in points[::8]:
        answers = bench.answers({"ant: visual.proj": point.strength}, [p.path for p in found], NAMES)
        right = [a[0][0] == p.name for a, p in zip(answers, found, strict=True)]
        assert point.recognised == sum(r for r, p in zip(right, found, strict=True) if p.name == "ant")
        assert point.recognised + point.retained == sum(right)
    for chosen, names in (([], NAMES), (["ant: visual.proj"], ["owl", "cow"])):
        with pytest.raises(SlugError, match="choose an edit"):
            bench.curve(chosen, found, names)


def test_pictures_of_each_layout_and_their_sample(tiny_world, explored):
    faces, objects = samples.pictures(tiny_world / "celeba"), samples.pictures(tiny_world / "ImageNet" / "val")
    assert len({p.name for p in faces}) == 4 and len({p.name for p in objects}) == 8
    assert {p.name for p in samples.pictures(explored / "faces")} == set(NAMES)
    name = objects[0].name
    found = samples.sample([*faces, *objects], [name.upper().replace(" ", "_")])
    assert found[0].name == name and sum(p.name == name for p in found) == min(
        samples.MANY, sum(p.name == name for p in objects)
    )
    assert all(sum(p.name == n for p in found) == samples.FEW for n in {p.name for p in faces})
    with pytest.raises(SlugError, match="holds no labelled pictures"):
        samples.pictures(explored / "results")
    many = [Picture(f"{i}-{j}", f"name {i}") for i in range(100) for j in range(30)]
    assert len(samples.sample(many, ["name 7"])) == samples.MANY + samples.NAMES * samples.FEW


def test_names_are_the_lines_each_once():
    assert samples.names_of(' Lion\n\nlion \n<b>&|"\nPolice_Officer\nPolice Officer') == ["Lion", '<b>&|"', "Police_Officer"]
    for text in ("", "Lion", "Lion\nLION"):
        with pytest.raises(SlugError, match="two names"):
            samples.names_of(text)


def test_a_pipeline_draws_before_and_after(tiny_pipeline, tmp_path):
    model = tiny.load_pipeline(tiny_pipeline)
    name = next(n for n in model.parameters if n.endswith("fc1.weight"))
    write_delta(tmp_path, model, "owl", name)
    bench = Bench(
        str(tiny_pipeline / "pipeline"), [str(tmp_path)], clip=str(tiny_pipeline / "hugging_face"), steps=3, guidance=3.0
    )
    (label,) = bench.edits
    before, after = bench.drawn({label: 2.0}, "an owl", 4)
    assert bench.draws and before.size == after.size == (16, 16) and before.tobytes() != after.tobytes()
    same = bench.drawn({label: 0.0}, "an owl", 4)
    assert same[0].tobytes() == same[1].tobytes() == before.tobytes()
    for prompt, seed in (("", 1), ("an owl", -1)):
        with pytest.raises(SlugError, match="give a prompt"):
            bench.drawn({}, prompt, seed)


def test_the_command_refuses_a_bad_folder_before_it_opens_a_page(tmp_path):
    pytest.importorskip(
        "gradio", reason="no Gradio here; scripts/run_explorer.sh installs it into an environment of its own"
    )
    with pytest.raises(SlugError, match="model folder not found"):
        __main__.main(["--model-dir", str(tmp_path / "nowhere"), "--results", str(tmp_path)])
