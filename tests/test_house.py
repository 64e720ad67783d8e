"""The house: what installs, shell scripts, ignored outputs, licences, and paths that README names."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted((ROOT / "scripts" / "profiles").glob("*.sh"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
WRAPPERS = [p for p in SCRIPTS if p.name != "common.sh"]
MINE = ("SLUG_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PROFILE", "DRY_RUN")


def named(path):
    return path.name


def defaults(profile):
    """The variables that a profile sets."""
    return re.findall(r'^: "\$\{(\w+):=', profile.read_text(), re.M)


def shell(script, *args, cwd=ROOT, **variables):
    """Run a script as a user with a ready Python would; `variables` are its environment beside what every shell has."""
    unset = {*MINE, *(v for p in PROFILES for v in defaults(p))}
    env = {k: v for k, v in os.environ.items() if k not in unset}
    env |= {"SLUG_PYTHON": sys.executable, "NAMES": "Ann_Example Bob_Example"}
    env |= {k: str(v) for k, v in variables.items()}
    command = ["bash", str(script), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


# ------------------------------------------------------------------------------------------------------- installation


def pins(without=()):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: pins for name, pins in project["optional-dependencies"].items() if name not in without}
    return project["dependencies"] + [p for extra in extras.values() for p in extra]


def test_environment_and_pyproject_install_the_same_pinned_set():
    conda = re.findall(r"^ {6}- (\S+)", (ROOT / "environment.yml").read_text(), re.M)
    assert conda.pop(conda.index("-e")) == "-e"
    assert sorted(conda) == sorted(pins(without=["ray"]))  # of use on a cluster only
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", p) for p in pins())


FAKE_PYTHON = """#!/bin/bash
# A python that makes no environment and installs nothing, but writes down what it was asked for.
case "$*" in
  "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  "-m pip"*) echo "$*" >>"$PIP_LOG" ;;
  *import\\ slug*) ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def bare(tmp_path):
    """A bare clone whose path has a space, and a function that runs its setup.sh where every Python is FAKE_PYTHON."""
    clone, path, log = tmp_path / "a clone", tmp_path / "bin", tmp_path / "pip.log"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "data/emoji").mkdir(parents=True)
    for names in (ROOT / "data/emoji").glob("*_names.txt"):  # which profiles read
        shutil.copy(names, clone / "data/emoji")
    path.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12"):
        (path / name).write_text(FAKE_PYTHON)
        (path / name).chmod(0o755)

    def setup(*args, **variables):
        variables = {"REAL_PYTHON": sys.executable, "PIP_LOG": log, "SLUG_PYTHON": "", **variables}
        done = shell(clone / "scripts/setup.sh", *args, cwd="/", PATH=f"{path}:{os.environ['PATH']}", **variables)
        asked = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return done, asked

    return clone, setup


def test_setup_installs_torch_first_and_once(bare):
    clone, setup = bare
    done, asked = setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{clone}/.venv/bin/python\n"
    torch, torchvision, rest = (a for a in asked if "install" in a)
    assert torch.split()[-1] in pins() and torch.split()[-1].startswith("torch==")
    assert torchvision.split()[-1].startswith("torchvision==") and "--no-deps" in torchvision
    assert rest.endswith("-e .[dev]")

    again, asked = setup()
    assert (again.stdout, asked) == (done.stdout, [])
    with (clone / "pyproject.toml").open("a") as f:
        f.write("# changed\n")
    assert len(setup()[1]) == 4  # pip --version, then three installs


def test_setup_in_a_dry_run_makes_nothing(bare):
    clone, setup = bare
    done, asked = setup("--dry-run")
    assert done.returncode == 0 and "pip install" in done.stderr
    assert not asked and not (clone / ".venv").exists()


def test_setup_takes_an_environment_that_holds_the_pins(bare):
    clone, setup = bare
    done, asked = setup(VIRTUAL_ENV=Path(sys.prefix))
    assert done.stdout == f"{sys.prefix}/bin/python\n" and not asked
    assert not (clone / ".venv").exists()


def test_setup_refuses_other_pythons_in_one_line(bare, tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/bash\n[ $1 = -V ] && echo Python 3.9.2 || exit 1\n")
    old.chmod(0o755)
    done, asked = bare[1](REAL_PYTHON=old)
    assert done.returncode == 2 and not asked
    assert done.stderr.count("\n") == 1 and "Python 3.9.2" in done.stderr
    done, _ = bare[1](SLUG_PYTHON=old)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


# -------------------------------------------------------------------------------------------------------------- shell


@pytest.mark.parametrize("script", [*SCRIPTS, *PROFILES, ROOT / ".ci/run"], ids=named)
def test_scripts_parse_and_stop_at_the_first_error(script):
    subprocess.run(["bash", "-n", script], check=True)
    if script not in PROFILES:
        assert re.search(r"^set -euo pipefail$", script.read_text(), re.M)


@pytest.mark.parametrize("profile", PROFILES, ids=named)
@pytest.mark.parametrize("script", WRAPPERS, ids=named)
def test_dry_run_anywhere_names_stages_that_exist_and_writes_nothing(script, profile, tmp_path):
    results = tmp_path / "results"
    done = shell(script, "--dry-run", cwd=tmp_path, PROFILE=profile.stem, RESULT_DIR=results)
    assert done.returncode == 0, done.stderr
    for stage in re.findall(r"\bsrc/[\w/]+\.py", done.stdout):
        assert (ROOT / stage).is_file(), f"{script.name} calls {stage}, which is not there"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", WRAPPERS, ids=named)
def test_help_says_what_a_script_does(script):
    done = shell(script, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 1, done.stderr


def test_profiles_set_the_same_variables_and_each_can_be_overridden():
    assert len({frozenset(defaults(p)) for p in PROFILES}) == 1
    for profile in PROFILES:
        names = defaults(profile)
        line = f'set -euo pipefail; source "{profile}"; for v in {" ".join(names)}; do echo "${{!v}}"; done'
        env = {"PATH": os.environ["PATH"], "ROOT": "/nowhere"} | dict.fromkeys(names, "mine")
        done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["mine"] * len(names)


def test_settings_and_further_flags_reach_the_stage():
    done = shell(ROOT / "scripts/run_clip_slug.sh", "--dry-run", "--force", NAMES="A_B\nC", SEED=7, CLIP_MODEL_ID="x y")
    for expected in ("--celeb-name A_B C --", "--seed 7", r"--clip-model-id x\ y", "--force"):
        assert expected in done.stdout
    done = shell(ROOT / "scripts/run_demo.sh", "--dry-run", DATA_DIR="/my world")
    assert len(re.findall(r"/my\\ world(?: |/)", done.stdout)) > 8 and "data/demo" not in done.stdout


def test_the_whole_of_table_1_is_the_stages_in_order_and_what_they_take(tmp_path):
    done = shell(ROOT / "scripts/run_all_clip.sh", "--dry-run", PROFILE="paper", NAMES="", DATA_DIR=tmp_path)
    stages = re.findall(r"^\+ .*?((?:src/clip|scripts)/\w+\.py)", done.stdout, re.M)
    wanted = "check_data a0_create_tar a1_compute_grad a2_unlearn_slug a1_compute_grad a3_unlearn_compare a4_report"
    assert [Path(s).stem for s in stages] == wanted.split()
    commands = [line for line in done.stdout.splitlines() if line.startswith("+ ") and "a4_report" not in line]
    for line in commands:
        assert "Elon_Musk Jeff_Bezos Taylor_Swift Kim_Kardashian Mark_Zuckerberg --" in line
    assert sum("--imagenet-share 0.05" in line for line in commands) == 2
    assert re.search(r"^\| baselines \| 5 names, 5 methods, 5 settings \| [\d.]+ \|", done.stdout, re.M)
    assert "to do: register" in done.stdout and "Estimates, not runs" in done.stdout
    done = shell(
        ROOT / "scripts/run_all_clip.sh", PROFILE="paper", NAMES="A_B", DATA_DIR=tmp_path, RESULT_DIR=tmp_path / "r"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "CelebA cannot be used" in done.stderr
    assert list(tmp_path.iterdir()) == []


def calls(done, stage):
    """The arguments that a dry run gives a stage, a list a call."""
    lines = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("+ ")]
    return [line[3:] for line in lines if len(line) > 2 and line[2].endswith(f"/{stage}.py")]


def given(call, flag):
    """What follows a flag of one call."""
    rest = call[call.index(flag) + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]


SD_STAGES = """a0_create_prompts_uncanvas a0_create_tar_ucanvas b0_generate_forget_set b1_compute_grad b2_unlearn_sd
    b3_eval_uncanvas""".split()
PAPER_MULTI = (  # PAPER.md: two to six identities; the seven classes of the appendix; ours
    ("", "Elon_Musk Mark_Zuckerberg Jeff_Bezos Taylor_Swift Kim_Kardashian Kanye_West"),
    ("objects", "Basketball Beach Castle Revolver Rifle School_bus Sunglasses"),
    ("mixture", "Elon_Musk Basketball Taylor_Swift Castle"),
)


def test_several_at_once_covers_identities_objects_and_mixtures(tmp_path):
    variables = {"PROFILE": "paper", "RESULT_DIR": tmp_path / "r", "REFERENCE": "results/demo"}
    done = shell(ROOT / "scripts/run_multi.sh", "--dry-run", **variables)
    for stage in ("a0_create_tar", "a1_compute_grad", "a2_unlearn_slug", "a5_unlearn_multi"):
        flag = "--name" if stage == "a0_create_tar" else "--celeb-name"
        assert [given(c, flag) for c in calls(done, stage)] == [names.split() for _, names in PAPER_MULTI]
        folders = [str(tmp_path / f"r/multi-{part}").rstrip("-") for part, _ in PAPER_MULTI]
        assert [given(c, "--result-dir") for c in calls(done, stage)] == [[f] for f in folders]
    for (part, _), call in zip(PAPER_MULTI, calls(done, "a5_unlearn_multi"), strict=True):
        assert given(call, "--part") == [part] and given(call, "--out") == ["results/demo/multi"]
        # 5% of ImageNet's pictures would leave two or three of a class that is to be forgotten.
        assert given(call, "--imagenet-share") == ["1" if part else "0.05"]
    assert not calls(done, "build_world")
    whitened = shell(ROOT / "scripts/run_multi.sh", "--dry-run", **variables, MULTI_METHOD="slug_ws")
    assert [given(c, "--part") for c in calls(whitened, "a5_unlearn_multi")] == [["ws"], ["ws-objects"], ["ws-mixture"]]
    for stage, method in (("a1_compute_grad", "calc_grad"), ("a2_unlearn_slug", "slug")):
        for run, end in ((done, ""), (whitened, "_ws")):
            assert [call[len(call) - call[::-1].index("--unlearn-method")] for call in calls(run, stage)] == 3 * [
                method + end
            ]
    done = shell(ROOT / "scripts/run_multi.sh", "--dry-run", **variables, MULTI_OBJECTS="", MULTI_MIXTURE="")
    assert len(calls(done, "a5_unlearn_multi")) == 1


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
    assert [c[len(c) - c[::-1].index("--unlearn-method")] for c in b1] == (["calc_grad", "calc_grad_ws"] if folder else [])
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


def test_uncanvas_asks_for_what_the_published_classifiers_know_and_forgets_what_it_is_told(tmp_path):
    labels = json.loads((ROOT / "data/uncanvas/classifiers.json").read_text())["labels"]
    assert (len(labels["style"]), len(labels["object"])) == (51, 20) and all(v == sorted(v) for v in labels.values())
    styles = [s for s in labels["style"] if s != "Seed_Images"]  # the photographs
    script, variables = ROOT / "scripts/run_uncanvas.sh", {"PROFILE": "paper", "RESULT_DIR": tmp_path}
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


@pytest.mark.parametrize("script", ["run_multi.sh", "run_lasting.sh", "run_study.sh"])
def test_the_demo_builds_its_world_in_a_fresh_clone(script, tmp_path):
    done = shell(ROOT / "scripts" / script, "--dry-run", RESULT_DIR=tmp_path / "r")
    stages = re.findall(r"^\+ .*?src/\w+/(\w+)\.py", done.stdout, re.M)
    assert stages[:2] == ["build_world", "a0_create_tar"]


def test_the_reference_run_has_every_part(tmp_path):
    done = shell(ROOT / "scripts/make_reference.sh", "--dry-run", RESULT_DIR=tmp_path / "r")
    (call,) = calls(done, "a7_lasting")
    wanted = {"--out": "results/demo/lasting", "--readme": "README.md", "--records": "results/demo"}
    assert {flag: given(call, flag) for flag in wanted} == {flag: [value] for flag, value in wanted.items()}
    (call,) = calls(done, "b5_unlearn_multi")
    assert given(call, "--style") == ["Noto", "EmojiOne", "Blob"] and given(call, "--object") == ["bell", "rocket", "skull"]
    assert given(call, "--out") == ["results/demo/uncanvas"]
    done = shell(ROOT / "scripts/run_lasting.sh", "--dry-run", "--report", RESULT_DIR=tmp_path / "r")
    assert re.findall(r"^\+ .*?src/\w+/(\w+)\.py", done.stdout, re.M) == ["a7_lasting"] and "# missing" not in done.stdout


def test_imagenet_is_prepared_from_its_own_folder(tmp_path):
    (tmp_path / "ImageNet").mkdir()
    variables = {"IMAGENET_VAL": tmp_path / "ImageNet/val", "RESULT_DIR": tmp_path / "r"}
    done = shell(ROOT / "scripts/valprep.sh", "--dry-run", cwd=tmp_path / "ImageNet", **variables)
    assert f"--tar {tmp_path}/ImageNet/ILSVRC2012_img_val.tar" in done.stdout and "--any-archive" not in done.stdout
    done = shell(ROOT / "scripts/valprep.sh", cwd=tmp_path / "ImageNet", ANY_ARCHIVE=1, **variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "registration" in done.stderr


def test_a_missing_earlier_stage_is_named_with_its_command(tmp_path):
    done = shell(ROOT / "scripts/run_compute_grad.sh", TAR_DIR=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/Ann_Example.tar" in done.stderr
    assert "python src/clip/a0_create_tar.py --name Ann_Example" in done.stderr


@pytest.mark.parametrize(
    "arguments, variables", [((), {"NAMES": " "}), (("--bogus",), {}), ((), {"PROFILE": "../x"})], ids=str
)
def test_wrong_use_ends_with_one_line(arguments, variables):
    script = "run_demo.sh" if arguments else "run_clip_slug.sh"
    done = shell(ROOT / "scripts" / script, *arguments, **variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


# --------------------------------------------------------------------------------------------------- what is committed


def test_readme_names_only_paths_that_exist():
    text = (ROOT / "README.md").read_text()
    paths = {p.rstrip("./") for p in re.findall(r"(?<![\w/])(?:scripts|src|notebooks)/[\w./*-]*", text)}
    assert {"scripts/run_demo.sh", "scripts/run_tests.sh"} <= paths
    assert [p for p in sorted(paths) if not any(ROOT.glob(p))] == []


def test_ci_calls_the_test_command_of_readme():
    command = "bash scripts/run_tests.sh"
    assert command in (ROOT / ".ci/run").read_text() and command in (ROOT / "README.md").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_git_ignores_what_runs_write(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    out = """results/grads/A_x/forget_grads.pt results/clip/report/table.csv results/train/mini-clip.pt
        data/tar_files/A.tar data/demo/celeba/frequent_celebs.txt data/laion/laion400m/00000.tar
        .venv/bin/python src/slug/__pycache__/a.pyc results/demo/.table.csv.1.part
        results/demo/multi/m-cosine-sum-6.pdf results/demo/multi/m-cosine-joint-3-6.png results/demo/lasting/m-relearning.pdf
        results/demo/multi/mixture/joint-3-4/m-A.delta.safetensors""".split()
    kept = """results/README.md results/demo/table.csv results/bench/table.csv data/README.md data/emoji/sets.csv
        data/uncanvas/classifiers.json
        data/models/mini-clip/open_clip_config.json src/slug/data.py results/demo/m-A.delta.safetensors
        results/demo/multi/m-cosine-sum-2.png results/demo/multi/mixture/m-cosine-sum-4-objects.png
        results/demo/multi/mixture/table.csv results/demo/lasting/runs.parquet results/demo/lasting/REPORT.md
        results/demo/lasting/m-relearning.png results/demo/uncanvas/multi.csv results/demo/uncanvas/candidates.csv
        results/demo/uncanvas/settings.json""".split()
    done = subprocess.run(["git", "check-ignore", *out, *kept], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == out


def test_notice_attributes_every_icon_set():
    notice = (ROOT / "NOTICE").read_text()
    with (ROOT / "data/emoji/sets.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    packed = (ROOT / "data/emoji").glob("*.json.gz")
    assert {p.name.removesuffix(".json.gz") for p in packed} == {r["set"] for r in rows}
    for row in rows:
        entry = re.search(rf"^{row['set']}, (?:.+\n)+", notice, re.M)
        assert entry and all(row[k] in entry[0] for k in ("author", "source", "licence", "licence_url")), row["set"]
