"""b0_generate_forget_set.py."""

import pytest
import tiny
from tiny_canvas import Run

from slug.data.pairs import TarMembers
from slug.models import diffusion


@pytest.fixture
def run(tiny_canvas, tmp_path):
    return Run(tiny_canvas, tmp_path)


def stage(run, name, count, *more):
    """The stage and its flags."""
    images = ["--tar-dir", run.tars, "--image-dir", run.folder / "pictures"]
    return ["b0_generate_forget_set", *run.pipeline, *images, "--count", count, "--object", name, *more]


def test_captions_are_the_prompts_in_turn(run):
    run.run(*stage(run, "iron_man", 4))
    with TarMembers(run.tars / "iron_man.tar") as tar:
        captions = [tar[f"iron_man_{i}.txt"].decode() for i in range(4)]
    assert captions == ["iron man", "a photo of iron man", "iron man, digital art", "iron man"]
    assert len(list((run.folder / "pictures/iron_man").iterdir())) == 4


def test_a_concept_is_asked_for_in_every_cell_of_the_prompts(run):
    run.prepare()
    run.run(*stage(run, "palm_tree", 4, "--prompts", run.prompts, "--tar-dir", run.folder / "own"))
    with TarMembers(run.folder / "own/palm_tree.tar") as tar:
        captions = {tar[n] for n in tar if n.endswith(".txt")}
    assert captions == {b"An palm tree image in Blob Old style.", b"An palm tree image in Noto style."}


def test_a_run_that_was_stopped_goes_on(run, monkeypatch):
    generate, made = diffusion.Diffusion.generate, []

    def stop(self, prompts, seeds, desc=None, **how):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(prompts)
        return generate(self, prompts, seeds, desc, **how)

    monkeypatch.setattr(diffusion.Diffusion, "generate", stop)
    with pytest.raises(KeyboardInterrupt):
        run.run(*stage(run, "iron_man", 20))
    assert not (run.tars / "iron_man.tar").exists()
    counted = []
    monkeypatch.setattr(diffusion.Diffusion, "generate", lambda *a, **how: counted.append(len(a[1])) or generate(*a, **how))
    run.run(*stage(run, "iron_man", 20))
    assert sum(counted) == 12  # 8 were there


def test_the_same_pictures_are_made_again(run):
    run.run(*stage(run, "iron_man", 2))
    before = (run.tars / "iron_man.tar").read_bytes()
    run.run(*stage(run, "iron_man", 2, "--force"))
    assert (run.tars / "iron_man.tar").read_bytes() == before


def test_a_tar_of_this_pipeline_is_kept(run):
    run.run(*stage(run, "iron_man", 2))
    before = (run.tars / "iron_man.tar").stat().st_mtime_ns
    run.run(*stage(run, "iron_man", 2))
    assert (run.tars / "iron_man.tar").stat().st_mtime_ns == before


def test_a_tar_from_elsewhere_is_refused(run, monkeypatch, capfd):
    tiny.write_pairs(run.tars / "bell.tar", ["a bell", "A bell image in Noto style."])
    before = (run.tars / "bell.tar").read_bytes()
    line = tiny.failure(monkeypatch, capfd, *stage(run, "bell", 2), *run.common)
    assert "is no forget set of this pipeline and these prompts" in line and (run.tars / "bell.tar").read_bytes() == before


def test_prompts_without_the_concept_are_refused(run, monkeypatch, capfd):
    run.prepare()
    line = tiny.failure(monkeypatch, capfd, *stage(run, "dragon", 2, "--prompts", run.prompts), *run.common)
    assert "has no object 'dragon'" in line
