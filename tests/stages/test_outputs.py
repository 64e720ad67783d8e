"""A file where a stage shall write a folder ends with one line and exit code 2, before anything is computed."""

import edits
import pytest
import tiny

from slug import commands, files

# {stage: its flags that name folders to write}; the ones of a2 and a4 are those of the stages, not of their subcommands.
RESULTS = ("--result-dir",)
STAGES = {
    "a0_create_tar": ("--tar-dir", "--image-dir", *RESULTS),
    "a0_create_tar_ucanvas": ("--tar-dir",),
    "a0_download": ("--laion-dir",),
    "a0_eval_celeba": RESULTS,
    "a0_eval_imagenet": RESULTS,
    "a0_prepare_celeba": ("--data-root",),
    "a0_prepare_imagenet": ("--imagenet-val",),
    "a1_compute_grad": RESULTS,
    "a2_unlearn_slug": RESULTS,
    "a3_unlearn_compare": RESULTS,
    "a4_report": ("--out", *RESULTS),
    "a5_unlearn_multi": ("--out", *RESULTS),
    "a6_study": RESULTS,
    "a7_lasting": ("--out", *RESULTS),
    "a8_benchmark": ("--out", *RESULTS),
    "b0_generate_forget_set": ("--tar-dir", "--image-dir", *RESULTS),
    "b1_compute_grad": RESULTS,
    "b2_unlearn_sd": RESULTS,
    "b3_eval_uncanvas": ("--out", *RESULTS),
    "b4_optimised_tokens": ("--out", *RESULTS),
    "b5_unlearn_multi": ("--out", *RESULTS),
    "c1_unlearn_vlm": RESULTS,
    "c2_eval_vlm": ("--out", *RESULTS),
}
FILES = {"a0_create_prompts_uncanvas"}  # stages that write a file alone


@pytest.fixture(params=["a file", "below a file"])
def taken(request, tmp_path):
    """A path where no folder can be."""
    file = tmp_path / "file"
    file.write_text("years of work")
    yield file if request.param == "a file" else file / "deep" / "below"
    assert file.read_text() == "years of work" and list(tmp_path.iterdir()) == [file]


def test_all_stages_are_listed():
    found = {p.stem for part in ("clip", "sd", "vlm") for p in (tiny.ROOT / "src" / part).glob("[abc]*.py")}
    assert found == {*STAGES, *FILES}


@pytest.mark.parametrize(("stage", "flag"), [(s, f) for s, flags in STAGES.items() for f in flags])
def test_a_file_where_a_folder_goes_is_one_line(taken, stage, flag, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", [stage, flag, str(taken)])
    with pytest.raises(SystemExit) as end:
        tiny.cli.exit_with(tiny.stage(stage).main)
    said = capfd.readouterr().err.splitlines()
    assert end.value.code == 2 and len(said) == 1 and said[0].startswith(f"error: argument {flag}: {taken}: ")
    assert "one cannot write into a file, or below one" in said[0]


def test_a_folder_where_a_file_goes_is_one_line(tmp_path, monkeypatch, capfd):
    given = ["--names", "bell", "key", "--out", tmp_path]
    assert "cannot write" in tiny.failure(monkeypatch, capfd, "a0_create_prompts_uncanvas", *given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["apply", "revert", "seal", "adapter", "forget"])
@pytest.mark.parametrize("start", ["stage", "slug"])
def test_a_file_where_an_edited_folder_goes_is_one_line(tiny_clip, tmp_path, start, command, monkeypatch, capfd):
    file, delta, edited = tmp_path / "file", tmp_path / "a.delta.safetensors", tmp_path / "edited"
    file.write_text("years of work")
    edits.make(tiny_clip, delta, "hugging_face", 0)
    model = tiny_clip / "hugging_face"
    if command in ("revert", "seal"):
        tiny.run("a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", model, "--out", edited)
        model = edited
    given = {
        "apply": ["--delta", delta, "--model-dir", model],
        "revert": ["--delta", delta.name, "--model-dir", model],
        "seal": ["--model-dir", model],
        "adapter": ["--delta", delta],
        "forget": ["--model", model, "--name", "a", "--images", tmp_path, "--retain", tmp_path, "--device", "cpu"],
    }[command]
    if (start, command) == ("stage", "forget"):
        return  # a2's own flags are in STAGES
    given = [command, *map(str, given), "--out", str(file)]
    monkeypatch.chdir(tmp_path)
    if start == "stage":
        said = tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *given)
    else:
        with pytest.raises(files.SlugError) as err:
            commands.run(given)
        said = str(err.value)
    assert "file" in said and "\n" not in said and file.read_text() == "years of work" and not tiny.left_over(tmp_path)
