"""a0_create_prompts_uncanvas.py and a0_create_tar_ucanvas.py."""

import pytest
import tiny
from tiny_canvas import OBJECTS, STYLES, Run

from slug.data.pairs import TarMembers
from slug.evaluation import canvas_prompts


@pytest.fixture
def run(tiny_canvas, tmp_path):
    return Run(tiny_canvas, tmp_path)


def prompts(run, *more):
    """The stage and its flags."""
    return ["a0_create_prompts_uncanvas", "--canvas", run.canvas, "--out", run.prompts, *more]


def tars(run, *more):
    """The stage and its flags."""
    return ["a0_create_tar_ucanvas", "--canvas", run.canvas, "--tar-dir", run.tars, "--style", "Noto", *more]


def test_styles_are_asked_for_by_either_spelling(run):
    run.run(*prompts(run, "--style", "Noto", "Blob Old", "Noto"))
    assert {r.style for r in canvas_prompts.read_requests(run.prompts)} == {"Noto", "Blob_Old"}


def test_what_the_classifiers_do_not_know_is_refused(run, tiny_canvas, monkeypatch, capfd):
    (run.canvas / "Dali/bell").mkdir(parents=True)
    given = prompts(run, "--classifiers", tiny_canvas / "classifiers", *run.common)
    assert "does not know 'Dali'" in tiny.failure(monkeypatch, capfd, *given) and not run.prompts.exists()


def test_names_can_be_asked_for_without_styles(run):
    run.run(*prompts(run, "--names", "iron_man", "a dog", "--test-seeds", 0, 1, 2))
    asked = canvas_prompts.read_requests(run.prompts)
    assert {r.prompt for r in asked} == {"iron man", "a dog"} and len(asked) == 2 * 9


def test_a_list_of_prompts_to_leave_out_must_be_one(run, tmp_path, monkeypatch, capfd):
    (tmp_path / "left_out.json").write_text("[]")
    line = tiny.failure(monkeypatch, capfd, *prompts(run, "--leave-out", tmp_path / "left_out.json", *run.common))
    assert "has no list" in line and "of prompts" in line


def test_a_styles_forget_set_shows_every_object_with_captions(canvas_run):
    with TarMembers(canvas_run.tars / "Noto.tar") as tar:
        members = {n: tar[n] for n in tar}
    assert set(members) == {f"{o}_Noto_{n}.{end}" for o in OBJECTS for n in (1, 2, 3) for end in ("jpg", "txt")}
    assert members["palm_tree_Noto_2.txt"] == b"A palm tree image in Noto style."


def test_an_objects_forget_set_shows_every_style(canvas_run):
    with TarMembers(canvas_run.tars / "palm_tree.tar") as tar:
        assert {n.split(".")[0] for n in tar} == {f"palm_tree_{s}_{n}" for s in STYLES for n in (1, 2, 3)}


def test_broken_pictures_are_left_out_and_counted(run, capfd):
    (run.canvas / "Noto" / "bell" / "1.jpg").write_bytes(b"no picture")
    run.run(*tars(run, "--max-count", 4))
    assert "Noto: 3 pictures, 1 broken" in "".join(capfd.readouterr())


def test_a_good_tar_is_kept(run):
    run.run(*tars(run))
    before = (run.tars / "Noto.tar").stat().st_mtime_ns
    run.run(*tars(run))
    assert (run.tars / "Noto.tar").stat().st_mtime_ns == before


def test_an_unknown_style_is_refused(run, monkeypatch, capfd):
    assert "no style 'Dali'" in tiny.failure(monkeypatch, capfd, *tars(run, "--style", "Dali"), *run.common)


def test_a_tar_of_other_pictures_is_refused_unless_forced(run, monkeypatch, capfd):
    tiny.write_pairs(run.tars / "Noto.tar", ["a Noto drawing of a bell"])
    assert "is damaged or of other pictures" in tiny.failure(monkeypatch, capfd, *tars(run), *run.common)
    run.run(*tars(run, "--force"))
    with TarMembers(run.tars / "Noto.tar") as tar:
        assert len(tar) == 2 * 9
