"""The scripts of the experiments on Stable Diffusion: which stages they call, and what they keep apart."""

import json
import re

import pytest
from wrappers import ROOT, calls, given, shell

SD_STAGES = """a0_create_prompts_uncanvas a0_create_tar_ucanvas b0_generate_forget_set b1_compute_grad b2_unlearn_sd
    b3_eval_uncanvas""".split()


@pytest.mark.parametrize(
    "variables, method, folder",
    [
        ({"PROFILE": "demo"}, "slug_ws", "sd-multi"),
        ({"PROFILE": "demo", "MULTI_METHOD": "slug_w"}, "slug_w", ""),
        ({"PROFILE": "paper"}, "slug", ""),
    ],
)
def test_a_pipelines_several_at_once_take_edits_that_are_there_or_find_them_first(tmp_path, variables, method, folder):
    """What run_uncanvas.sh has run is not run again; what spares the other names is, with the names of the lists alone."""
    variables |= {"RESULT_DIR": tmp_path, "REFERENCE": "results/demo"}
    done = shell(ROOT / "scripts/run_uncanvas_multi.sh", "--dry-run", **variables)
    (b5,) = calls(done, "b5_unlearn_multi")
    assert given(b5, "--method") == [method] and given(b5, "--out") == ["results/demo/uncanvas"]
    assert given(b5, "--result-dir") == [str(tmp_path / folder)]
    assert given(b5, "--prompts") == [str(tmp_path / folder / "sd/prompts.csv")]
    b1, b2, b3 = (calls(done, s) for s in ("b1_compute_grad", "b2_unlearn_sd", "b3_eval_uncanvas"))
    names = given(b5, "--style") + given(b5, "--object")
    assert bool(b1) == bool(b2) == bool(b3) == bool(folder)
    assert all(given(c, "--style") + given(c, "--object") == names and given(c, "--method") == [method] for c in b2)
    assert all(given(c, "--celeb-name") == names for c in b1)
    assert [c[len(c) - c[::-1].index("--unlearn-method")] for c in b1] == (["slug", "slug_ws"] if folder else [])
    assert all(given(c, "--result-dir") == given(b5, "--result-dir") and "--out" not in c for c in b3)


def test_fid_is_left_out_of_a_quick_run_and_has_a_reference_of_its_own(tmp_path):
    canvas = tmp_path / "canvas"
    variables = {"RESULT_DIR": tmp_path / "r", "CANVAS_DIR": canvas}
    for folder in ("data", "reference"):
        (canvas / folder).mkdir(parents=True)
        found = calls(shell(ROOT / "scripts/run_uncanvas.sh", "--dry-run", **variables), "b3_eval_uncanvas")
        assert found and all(given(c, "--reference") == [str(canvas / folder)] and "--no-fid" not in c for c in found)
    found = calls(shell(ROOT / "scripts/run_uncanvas.sh", "--quick", "--dry-run", **variables), "b3_eval_uncanvas")
    assert found and all("--no-fid" in c for c in found)


def test_objects_that_nothing_had_used_are_forgotten_by_every_method_among_all_others(tmp_path):
    script = ROOT / "scripts/run_uncanvas.sh"
    done = shell(script, "--test-objects", "--dry-run", RESULT_DIR=tmp_path, REFERENCE="results/demo")
    (prompts,), b2 = calls(done, "a0_create_prompts_uncanvas"), calls(done, "b2_unlearn_sd")
    listed = (ROOT / "data/emoji/canvas_test_objects.txt").read_text().split("\n", 2)[-1].split()
    used = given(next(iter(calls(shell(script, "--dry-run", RESULT_DIR=tmp_path), "b2_unlearn_sd"))), "--object")
    assert len(listed) == 9 and not set(listed) & {*used, "mushroom"} and len(b2) == 2 * 8
    assert all(given(c, "--object") == listed and given(c, "--style") == [] for c in b2)
    assert {given(c, "--method")[0] for c in b2} == set("slug slug_w slug_w_rounds uce rece speed oce esd".split())
    assert {*listed, *used} == set(given(prompts, "--object")) and len(set(given(prompts, "--style"))) == 6
    last = calls(done, "b3_eval_uncanvas")[-1]
    assert given(last, "--out") == ["results/demo/uncanvas-test-objects"]
    assert given(last, "--result-dir") == [str(tmp_path / "sd-test-objects")]
    done = shell(script, "--test-objects", "--dry-run", PROFILE="paper", RESULT_DIR=tmp_path)
    assert done.returncode == 2 and "PROFILE=demo" in done.stderr


def test_uncanvas_asks_for_what_the_published_classifiers_know_and_forgets_what_it_is_told(tmp_path):
    labels = json.loads((ROOT / "data/uncanvas/classifiers.json").read_text())["labels"]
    assert (len(labels["style"]), len(labels["object"])) == (51, 20) and all(v == sorted(v) for v in labels.values())
    styles = [s for s in labels["style"] if s != "Seed_Images"]  # the photographs
    script, variables = ROOT / "scripts/run_uncanvas.sh", {"PROFILE": "paper", "RESULT_DIR": tmp_path}
    (b2,) = calls(shell(script, "--dry-run", **variables), "b2_unlearn_sd")  # by the published protocol
    assert sorted(given(b2, "--style")) == labels["style"] and given(b2, "--protocol") == ["paper"]
    variables["PROTOCOL"] = "ours"
    (b2,) = calls(shell(script, "--dry-run", **variables), "b2_unlearn_sd")
    assert (given(b2, "--style"), given(b2, "--object")) == (styles, labels["object"])
    done = shell(script, "--dry-run", **variables, STYLES="Van_Gogh", OBJECTS="")
    (prompts,), (b1,), (b2,) = (calls(done, s) for s in ("a0_create_prompts_uncanvas", "b1_compute_grad", "b2_unlearn_sd"))
    assert set(given(prompts, "--style")) == set(styles) and given(prompts, "--object") == labels["object"]
    assert given(prompts, "--classifiers") == [str(ROOT / "data/UnlearnCanvas/classifiers")]
    assert given(b1, "--celeb-name") == given(b2, "--style") == ["Van_Gogh"] and given(b2, "--object") == []
    done = shell(script, "--dry-run", **variables, STYLES="", OBJECTS="")
    assert done.returncode == 2 and "nothing to forget" in done.stderr


def test_uncanvas_misses_data_before_any_work(tmp_path):
    results = tmp_path / "r"
    done = shell(ROOT / "scripts/run_uncanvas.sh", PROFILE="paper", DATA_DIR=tmp_path, RESULT_DIR=results)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not results.exists()
    assert all(
        f"{what} cannot be used" in done.stderr for what in ("retain set", "UnlearnCanvas", "UnlearnCanvas classifiers")
    )
    done = shell(ROOT / "scripts/run_uncanvas.sh", "--dry-run", CANVAS_DIR="/c", CLASSIFIERS="/d", RESULT_DIR=results)
    (line,) = re.findall(r"^\+ .*check_data\.py.*", done.stdout, re.M)
    assert "--canvas /c --classifiers /d --strict" in line


def test_runs_of_other_prompts_or_names_have_folders_of_their_own(tmp_path):
    def folders(script, *more):
        """Result folders, and those of prompts and forget sets, of all stages that a script calls."""
        done = shell(ROOT / "scripts" / script, "--dry-run", *more, RESULT_DIR=tmp_path, TAR_DIR="/tars")
        assert done.returncode == 0, done.stderr
        found = {}
        for flag in ("--result-dir", "--prompts", "--tar-dir"):
            found[flag] = {w for s in SD_STAGES for c in calls(done, s) if flag in c for w in given(c, flag)}
        return found

    whole = {"--result-dir": {f"{tmp_path}"}, "--prompts": {f"{tmp_path}/sd/prompts.csv"}, "--tar-dir": {"/tars"}}
    assert folders("run_uncanvas.sh") == whole
    quick = {"--result-dir": {f"{tmp_path}/sd-quick"}, "--prompts": {f"{tmp_path}/sd-quick/sd/prompts.csv"}}
    assert folders("run_uncanvas.sh", "--quick") == quick | {"--tar-dir": {"/tars"}}
    names = {"--result-dir": {f"{tmp_path}/sd-names"}, "--prompts": {f"{tmp_path}/sd-names/sd/prompts.csv"}}
    assert folders("run_sd.sh") == names | {"--tar-dir": {"/tars/generated"}}
    assert folders("run_compute_grad_sd.sh") == {**names, "--prompts": set(), "--tar-dir": {"/tars/generated"}}


def test_characters_get_figures_of_the_test_split(tmp_path):
    done = shell(ROOT / "scripts/run_sd.sh", "--dry-run", PROFILE="paper", RESULT_DIR=tmp_path)
    (prompts,), (b2,), (b3,) = (calls(done, s) for s in ("a0_create_prompts_uncanvas", "b2_unlearn_sd", "b3_eval_uncanvas"))
    assert given(b2, "--object") == given(prompts, "--names")[:3] == ["iron_man", "mickey_mouse", "avocado_chair"]
    assert given(b2, "--select") == given(b3, "--judge") == ["clip"]
    assert given(prompts, "--out") == given(b2, "--prompts") == given(b3, "--prompts")


def test_only_methods_of_several_layers_are_given_rounds(tmp_path):
    values = {"RESULT_DIR": tmp_path, "SD_METHODS": "slug_w slug_w_rounds uce", "SD_ROUNDS": 4, "SD_JOBS": 1}
    done = shell(ROOT / "scripts/run_uncanvas.sh", "--dry-run", **values)
    found = [(given(c, "--method"), "--rounds" in c and given(c, "--rounds")) for c in calls(done, "b2_unlearn_sd")]
    assert found == [(["slug_w"], False), (["slug_w_rounds"], ["4"]), (["uce"], False)]


@pytest.mark.parametrize("flags", [("--quick", "--test-objects"), ("--test-objects", "--force", "--quick")])
def test_two_runs_of_other_names_are_not_mixed(tmp_path, flags):
    done = shell(ROOT / "scripts/run_uncanvas.sh", *flags, RESULT_DIR=tmp_path)
    assert done.returncode == 2 and done.stderr == "error: give --quick or --test-objects, not both\n"


@pytest.mark.parametrize("count", [1, 2])
def test_attempts_are_counted_in_parts_and_reported_once(tmp_path, count):
    done = shell(ROOT / "scripts/run_tokens.sh", "--dry-run", RESULT_DIR=tmp_path, SD_JOBS=count, REFERENCE="results/demo")
    found = calls(done, "b4_optimised_tokens")
    assert [given(c, "--part") for c in found if "--part" in c] == [[str(i + 1), "2"] for i in range(2) if count == 2]
    assert ["--out" in c for c in found] == [False] * (2 if count == 2 else 0) + [True]
