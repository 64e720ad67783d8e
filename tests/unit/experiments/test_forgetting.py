"""Forgetting by someone's own pictures: honest about the splits, says what it did not do, leaves the model as it was."""

import own_pictures
import pytest
import tiny
import torch
from own_pictures import NAME

from slug import files
from slug.data import labelled
from slug.errors import SlugError
from slug.experiments.forgetting import Forgetting, Wanted
from slug.methods import CLIP, names
from slug.schema import AGREEMENT, PAIRS


@pytest.fixture(scope="module")
def clip(taught_clip):
    return tiny.load(taught_clip)


@pytest.fixture(scope="module")
def images(tiny_world, tmp_path_factory):
    return own_pictures.write(tiny_world, tmp_path_factory.mktemp("own") / "alien")


@pytest.fixture
def forgetting(clip, tiny_world, images):
    """A Forgetting of the tiny world; other arguments replace its own."""

    def make(concepts=None, retain=None, *, classes=None, labelled=None, **wanted):
        how = {"classes": classes or own_pictures.classes(tiny_world), "labelled": labelled, "say": said.append}
        settings = Wanted(**({"evaluations": 4, "trace": 10, "epochs": 2} | wanted))
        return Forgetting(
            clip, concepts or {NAME: images}, retain or own_pictures.retain(tiny_world), wanted=settings, **how
        )

    said: list[str] = []
    make.said = said
    return make


@pytest.fixture(scope="module")
def found(clip, tiny_world, images):
    """A finished run with a labelled set."""
    before = files.tensor_hash(clip.parameters)
    sets = {"objects": labelled.load(str(tiny_world / "ImageNet" / "val"), clip.transform)}
    wanted = Wanted(evaluations=4, trace=10)
    work = Forgetting(
        clip,
        {NAME: images},
        own_pictures.retain(tiny_world),
        labelled=sets,
        wanted=wanted,
        classes=own_pictures.classes(tiny_world),
    )
    result = work.run(NAME)
    assert files.tensor_hash(clip.parameters) == before
    return work, result


def test_the_name_is_forgotten_and_every_figure_has_its_count(found):
    _, result = found
    before, after = (result.record["splits"]["test"][state] for state in ("original", "slug"))
    assert before["forget_acc1"] > 0.5 and after["forget_acc1"] == 0 and after["forget_recognised"] == 0
    assert after["n_forget"] == 7 and after["n_sources"] == 7
    assert after["forget_upper"] == after["forget_upper_sources"] == pytest.approx(1 - 0.05 ** (1 / 7))
    assert before[f"{AGREEMENT}_acc1"] == 1 and after[f"n_{AGREEMENT}"] > 20 and after[f"n_{PAIRS}"] > 20
    assert {"objects_acc1", "objects_change_low", "n_objects"} <= after.keys() and result.record["forgotten"]


def test_what_gives_gradients_chooses_and_reports_are_three_parts(found):
    work, result = found
    for pictures, parts in ((work.sets.concepts[NAME], work.sets.parts[NAME]), (work.sets.retain, work.sets.retain_parts)):
        held = [{pictures.groups[i] for i in rows.tolist()} for rows in parts.values()]
        assert not held[0] & held[1] and not held[1] & held[2] and not held[0] & held[2]
    evaluators = work.evaluators(NAME)
    used = {
        s: {work._tasks[0].tasks["names"].pictures.paths[i] for i in e.forget_rows.tolist()} for s, e in evaluators.items()
    }
    own = {s: {work.sets.concepts[NAME].pairs.keys[i] for i in work.sets.parts[NAME][s].tolist()} for s in used}
    assert used == own and not set(work.sets.forget_pairs(NAME).keys) & (own["validation"] | own["test"])
    sets = result.record["sets"]["concept"]
    assert [sets[p]["pictures"] for p in ("gradient", "validation", "test")] == [8, 7, 7]


def test_a_record_is_plain_json_and_the_choice_is_of_the_validation_split(found, tmp_path):
    _, result = found
    files.write_json(tmp_path / "r.json", result.record)
    assert files.read_json(tmp_path / "r.json")["layer"] == result.edit.layer
    best = result.record["winner"]
    forgetting = [c for c in result.record["candidates"] if c.get(f"{AGREEMENT}_acc1") is not None and c["forget_acc1"] == 0]
    assert best in forgetting and "NaN" not in (tmp_path / "r.json").read_text()


def test_the_same_seed_gives_the_same_edit(forgetting, found):
    again = forgetting(labelled=found[0].labelled).run(NAME)
    assert (again.edit.layer, again.edit.step) == (found[1].edit.layer, found[1].edit.step)


def test_a_name_that_the_model_does_not_know_is_a_warning_with_the_names_it_gives(forgetting, images):
    work = forgetting({"Zorblat": images})
    result = work.run("Zorblat")
    first, second = result.record["notes"]
    assert "recognises 0 of 14 held-out pictures as Zorblat" in first and "it says alien (" in first
    assert second == "nothing was forgotten: the unedited model recognised 0 of 7 test pictures before"
    assert forgetting.said == [f"note: {first}", f"note: {second}"]


def test_a_model_that_calls_all_retain_pictures_by_the_name_is_refused(forgetting):
    work = forgetting()
    work._tasks[0].tasks[AGREEMENT].pictures.labels.fill_(work.names.index(NAME))
    with pytest.raises(SlugError, match="calls every retain picture of the validation split Alien") as error:
        work.run(NAME)
    assert "\n" not in str(error.value)


def test_that_no_step_forgets_is_said(forgetting, monkeypatch):
    from slug.core import selection

    monkeypatch.setattr(selection, "forgets", lambda *_, **__: False)
    (note,) = forgetting().run(NAME).record["notes"]
    assert note.startswith("nothing was forgotten by the rule: no step brought recognition on the validation split to 2%")


def test_captions_of_another_name_are_replaced(forgetting, tiny_world, tmp_path):
    folder = own_pictures.write(tiny_world, tmp_path / "a", caption="me at the beach")
    work = forgetting({NAME: folder})
    assert (
        set(work.sets.forget_pairs(NAME).captions) == {NAME} and "22 captions do not say Alien" in work.sets.notes[NAME][0]
    )


def test_retain_pictures_that_repeat_the_concept_are_left_out(forgetting, images, tiny_world):
    work = forgetting(retain=[own_pictures.retain(tiny_world), own_pictures_with_captions(tiny_world, images)])
    assert work.sets.left_out["repeat pictures of what is forgotten"] == 22


def own_pictures_with_captions(world, images):
    from pathlib import Path

    folder = Path(images).parent / "captioned"
    return own_pictures.write(world, folder, caption="some picture")


def test_a_retain_set_of_nothing_but_the_concept_s_pictures_is_refused(forgetting, tiny_world, tmp_path):
    folder = own_pictures.write(tiny_world, tmp_path / "r", caption="some picture")
    double = own_pictures.write(tiny_world, tmp_path / "s", caption="another picture")
    with pytest.raises(SlugError, match="44 of the 44 pictures of the retain set repeat pictures of Alien"):
        forgetting(retain=[folder, double])


def test_near_duplicates_do_not_count_as_pictures(forgetting, tiny_world, tmp_path):
    own_pictures.write(tiny_world, tmp_path / "a", count=6)
    first = sorted((tmp_path / "a").glob("*.jpg"))[0]
    own_pictures.nearly_the_same(first, tmp_path / "a" / "copies", 9)
    with pytest.raises(SlugError, match=r"6 source images \(15 pictures, of which up to 10 nearly repeat each other\)"):
        forgetting({NAME: str(tmp_path / "a")})


def test_there_must_be_other_names(forgetting):
    with pytest.raises(SlugError, match="others to compete with"):
        forgetting(classes=[NAME.upper()])


@pytest.mark.parametrize("method", names(CLIP))
def test_every_method_of_the_registry_is_searched_or_trained_and_reported(forgetting, clip, method):
    before = files.tensor_hash(clip.parameters)
    result = forgetting(method=method, evaluations=2, grid=() if method.startswith("slug") else (1e-3,)).run(NAME)
    assert result.record["method"] == method and result.record["splits"]["test"][method]["n_forget"] == 7
    assert files.tensor_hash(clip.parameters) == before
    if not method.startswith("slug"):
        assert result.record["fronts"] == {"vision": [], "language": []}


def test_a_method_for_pipelines_only_is_refused(forgetting):
    with pytest.raises(SlugError, match="uce is no method for a CLIP; choose from slug"):
        forgetting(method="uce")


def test_several_names_get_an_edit_each_that_spares_the_others(forgetting, tiny_world, images, tmp_path):
    concepts = {NAME: images, "Baby": own_pictures.write(tiny_world, tmp_path / "b", name="Baby")}
    work = forgetting(concepts, method="slug_ws")
    results = {n: work.run(n) for n in work.names}
    tests = {name: result.record["splits"]["test"]["slug_ws"] for name, result in results.items()}
    assert tests[NAME]["n_names"] == tests["Baby"]["n_forget"]  # the other name's pictures are retained
    assert tests["Baby"]["n_names"] == tests[NAME]["n_forget"] == 7
    together = work.together({n: r.edit for n, r in results.items()})
    assert set(together) == {NAME, "Baby"} and together[NAME]["n"] == 7
    alone = forgetting(method="slug_w")
    sides = [w.passes.forget_gradient(NAME, w.method.variant)["visual.proj"] for w in (work, alone)]
    assert not torch.equal(*sides)


def test_the_rule_of_own_pictures_is_the_callers(forgetting):
    """At --max-forget 1 and without margins every step forgets, so that the first one is kept."""
    work = forgetting(max_forget=1.0, sigmas=0.0, evaluations=1)
    rule = work.evaluators(NAME)["validation"].rule
    assert (rule.most, rule.sigmas) == (1.0, 0.0)
    record = work.run(NAME).record
    assert record["rule"] == {"max_forget": 1.0, "sigmas": 0.0} and record["protocol"] == "ours"
