"""The prompts of the UnlearnCanvas protocol."""

import csv

import pytest
from tiny_canvas import OBJECTS, STYLES

from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_prompts import Concept, Request
from slug.settings import Concepts


@pytest.fixture
def path(tmp_path):
    """The CSV of all cells' Requests."""
    canvas_prompts.write_requests(tmp_path / "prompts.csv", canvas_prompts.requests(STYLES, OBJECTS))
    return tmp_path / "prompts.csv"


def test_a_prompt_has_names_with_spaces():
    assert Request("test", "Blob_Old", "palm_tree", 0).prompt == "An palm tree image in Blob Old style."


def test_without_a_style_the_prompt_is_the_name():
    assert Request("test", "", "iron_man", 0).prompt == "iron man"


def test_a_forgotten_style_becomes_any_image_of_the_object():
    assert Concept("style", "Noto").left_out_of(Request("validation", "Noto", "palm_tree", 0)) == "An palm tree image."


def test_a_forgotten_object_becomes_any_image_in_the_style():
    assert Concept("object", "key").left_out_of(Request("validation", "Noto", "key", 0)) == "An image in Noto style."


def test_a_forgotten_name_without_a_style_becomes_any_image():
    assert Concept("object", "key").left_out_of(Request("validation", "", "key", 0)) == "An image."


def test_a_concept_is_shown_under_either_spelling():
    asked = [Request("test", "Noto", thing, 0) for thing in ("palm_tree", "palm tree", "key")]
    assert Concept("object", "palm_tree").shown_by(asked) == [True, True, False]


def test_concepts_are_the_settings_styles_then_objects_each_once():
    found = canvas_prompts.concepts(Concepts(style=("Noto", "Blob", "Noto"), object=("bell",)))
    assert found == [("style", "Noto"), ("style", "Blob"), ("object", "bell")]


def test_concepts_of_requests_are_their_plain_names():
    found = canvas_prompts.concepts_of([Request("test", "", "palm_tree", 0), Request("test", "Noto", "bell", 0)])
    assert found == [("style", "Noto"), ("object", "palm tree"), ("object", "bell")]


def test_labels_of_requests_have_every_kind():
    assert canvas_prompts.labels_of([Request("test", "", "a_dog", 0)]) == {"style": [], "object": ["a dog"]}


def test_requests_are_read_as_they_were_written(path):
    assert canvas_prompts.read_requests(path) == canvas_prompts.requests(STYLES, OBJECTS)


def test_the_csv_has_the_seeds_beside_the_prompts(path):
    asked = canvas_prompts.requests(STYLES, OBJECTS)
    with path.open() as f:
        assert [(r["prompt"], int(r["seed"])) for r in csv.DictReader(f)] == [(r.prompt, r.seed) for r in asked]


def test_every_picture_has_a_noise_of_its_own():
    asked = canvas_prompts.requests(STYLES, OBJECTS)
    assert len({r.seed for r in asked}) == len(asked) == 11 * 6
    assert {r.seed % canvas_prompts.APART for r in asked if r.split == "test"} == set(canvas_prompts.TEST_SEEDS)


def test_shared_seeds_are_the_same_in_every_cell():
    shared = canvas_prompts.requests(STYLES, OBJECTS, shared=True)
    assert {r.seed for r in shared if r.split == "test"} == set(canvas_prompts.TEST_SEEDS) and len(shared) == 11 * 6


def test_a_seed_that_reaches_into_the_next_cell_is_refused():
    with pytest.raises(SlugError, match="below 10000"):
        canvas_prompts.requests(STYLES, OBJECTS, test=[10000])


def test_a_seed_of_both_splits_is_refused():
    with pytest.raises(SlugError, match="a seed is in both splits"):
        canvas_prompts.requests(STYLES, OBJECTS, validation=[0])


def test_a_csv_with_a_seed_in_both_splits_is_refused(path):
    path.write_text(path.read_text().replace("validation,Noto,bell,1000", "validation,Noto,bell,0"))
    with pytest.raises(SlugError, match="seed 0 is in both splits"):
        canvas_prompts.read_requests(path)


@pytest.mark.parametrize("line", ["validation,Noto,bell,x", "select,Noto,bell,1000"])
def test_a_damaged_line_is_named(path, line):
    path.write_text(path.read_text().replace("validation,Noto,bell,1000", line))
    with pytest.raises(SlugError, match="line 2"):
        canvas_prompts.read_requests(path)


def test_names_are_found_under_either_spelling_and_each_once():
    assert canvas_prompts.among(["Blob Old", "Noto", "Blob_Old"], STYLES, "style") == ["Blob_Old", "Noto"]


def test_no_names_mean_all():
    assert canvas_prompts.among([], STYLES, "style") == STYLES


def test_an_unknown_name_is_refused():
    with pytest.raises(SlugError, match="there is no style 'Dali'"):
        canvas_prompts.among(["Dali"], STYLES, "style")


def test_a_folder_without_cells_is_refused(tmp_path):
    with pytest.raises(SlugError, match="has no <Style>/<Object> folders"):
        canvas_prompts.grid(tmp_path)


def test_a_name_that_a_classifier_does_not_know_is_refused():
    with pytest.raises(SlugError, match="the object classifier does not know 'dragon'"):
        canvas_prompts.check_known([Request("test", "Noto", "dragon", 0)], {"object": OBJECTS})
