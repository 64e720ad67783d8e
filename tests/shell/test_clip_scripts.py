"""The scripts of the experiments on CLIP: which stages they call, in which order, with which arguments."""

import re
from pathlib import Path

import pytest
from wrappers import ROOT, calls, given, shell

from slug import protocols

PAPER_MULTI = (  # two to six identities and seven classes, as in the paper; a mixture of our own
    ("", "Elon_Musk Mark_Zuckerberg Jeff_Bezos Taylor_Swift Kim_Kardashian Kanye_West"),
    ("objects", "Basketball Beach Castle Revolver Rifle School_bus Sunglasses"),
    ("mixture", "Elon_Musk Basketball Taylor_Swift Castle"),
)


def test_settings_and_further_flags_reach_the_stage():
    done = shell(ROOT / "scripts/run_clip_slug.sh", "--dry-run", "--force", NAMES="A_B\nC", SEED=7, CLIP_MODEL_ID="x y")
    for expected in ("--celeb-name A_B C --", "--seed 7", r"--clip-model-id x\ y", "--force"):
        assert expected in done.stdout
    done = shell(ROOT / "scripts/run_demo.sh", "--dry-run", DATA_DIR="/my world")
    assert len(re.findall(r"/my\\ world(?: |/)", done.stdout)) > 8 and "data/demo" not in done.stdout


def test_the_demo_runs_baselines_only_where_asked():
    for more, compares in ((), 0), (("--with-baselines",), 1):
        done = shell(ROOT / "scripts/run_demo.sh", "--dry-run", *more, COMPARE_NAMES="")
        assert len(calls(done, "a2_unlearn_slug")) == 1 and len(calls(done, "a3_unlearn_compare")) == compares
    assert "unknown argument --baselines" in shell(ROOT / "scripts/run_demo.sh", "--dry-run", "--baselines").stderr


@pytest.mark.parametrize(("values", "count"), [({}, 1), ({"PROTOCOL": "paper"}, 1), ({"PROTOCOL": "ours"}, 5)])
def test_the_whole_of_table_1_is_the_stages_in_order_and_what_they_take(tmp_path, values, count):
    done = shell(ROOT / "scripts/run_all_clip.sh", "--dry-run", PROFILE="paper", NAMES="", DATA_DIR=tmp_path, **values)
    stages = re.findall(r"^\+ .*?((?:src/clip|scripts)/\w+\.py)", done.stdout, re.M)
    wanted = "check_data a0_create_tar a1_compute_grad a2_unlearn_slug a1_compute_grad a3_unlearn_compare a4_report"
    assert [Path(s).stem for s in stages] == wanted.split()
    commands = [line for line in done.stdout.splitlines() if line.startswith("+ ") and "a4_report" not in line]
    for line in commands:
        assert "Elon_Musk Jeff_Bezos Taylor_Swift Kim_Kardashian Mark_Zuckerberg --" in line
    assert sum("--imagenet-share 0.05" in line for line in commands) == 2
    assert re.search(rf"^\| baselines \| 5 names, 5 methods, {count} settings \| [\d.]+ \|", done.stdout, re.M)
    assert "to do: register" in done.stdout and "Estimates, not runs" in done.stdout
    done = shell(
        ROOT / "scripts/run_all_clip.sh", PROFILE="paper", NAMES="A_B", DATA_DIR=tmp_path, RESULT_DIR=tmp_path / "r"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "CelebA cannot be used" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "values", "protocol", "results"),
    [
        ("demo", {}, "ours", "results"),
        ("demo", {"PROTOCOL": "paper"}, "paper", "results/protocol-paper"),
        ("paper", {}, "paper", "results"),
        ("paper", {"PROTOCOL": "ours"}, "ours", "results/protocol-ours"),
    ],
)
def test_one_word_chooses_the_protocol_and_the_run_says_which(profile, values, protocol, results):
    done = shell(ROOT / "scripts/run_all_clip.sh", "--dry-run", PROFILE=profile, NO_PLAN=1, NAMES="Lion", **values)
    assert protocols.describe(protocols.get(protocol)) in done.stdout and f"protocol: {protocol}\n" in done.stdout
    for stage in ("a1_compute_grad", "a2_unlearn_slug", "a3_unlearn_compare"):
        for call in calls(done, stage):
            assert given(call, "--protocol") == [protocol] and given(call, "--result-dir") == [str(ROOT / results)]
    (check,) = calls(done, "check_data")
    assert ("membership" in given(check, "--only")) == (protocol == "paper")
    (slug,) = calls(done, "a2_unlearn_slug")
    assert given(slug, "--max-forget") == ["0.02"] and given(slug, "--sigmas") == ["3.5"]
    assert given(slug, "--mia-data")[0].endswith("cc3m/00000.tar")


@pytest.mark.parametrize(("protocol", "lines"), [("ours", 1), ("paper", None)])
def test_a_run_prints_the_points_of_a_protocol_only_where_it_is_the_papers(protocol, lines, tmp_path):
    done = shell(  # it ends at the first stage, which finds no data
        ROOT / "scripts/run_all_clip.sh", PROTOCOL=protocol, NAMES="Lion", DATA_DIR=tmp_path, RESULT_DIR=tmp_path / "r"
    )
    assert done.returncode == 2 and done.stdout.startswith(f"protocol: {protocol}")
    said = done.stdout.partition("[1/")[0]
    assert len(said.splitlines()) == (lines or len(protocols.describe(protocols.get(protocol)).splitlines()))


def test_the_published_baselines_run_at_the_published_settings():
    (call,) = calls(shell(ROOT / "scripts/run_clip_comparison.sh", "--dry-run", PROFILE="paper"), "a3_unlearn_compare")
    assert given(call, "--lr") == ["1e-7"] and given(call, "--epochs") == ["10"]
    demo = shell(ROOT / "scripts/run_clip_comparison.sh", "--dry-run", PROTOCOL="paper", NAMES="Lion")
    (call,) = calls(demo, "a3_unlearn_compare")  # 1e-7 would change nothing in a model this small
    assert len(given(call, "--lr")) == 3 and given(call, "--epochs") == ["10"] and "--settings-from" not in call


def test_an_unknown_protocol_is_refused():
    done = shell(ROOT / "scripts/run_clip_slug.sh", "--dry-run", PROTOCOL="theirs")
    assert done.returncode == 2 and "there is no protocol 'theirs'" in done.stderr


@pytest.fixture
def several(tmp_path):
    """A dry run of run_multi.sh by the paper's profile, with variables."""

    def run(**values):
        values = {"PROFILE": "paper", "RESULT_DIR": tmp_path / "r", "REFERENCE": "results/demo"} | values
        return shell(ROOT / "scripts/run_multi.sh", "--dry-run", **values)

    return run


def test_several_at_once_covers_identities_objects_and_mixtures(several, tmp_path):
    done = several()
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
    assert len(calls(several(MULTI_OBJECTS="", MULTI_MIXTURE=""), "a5_unlearn_multi")) == 1


@pytest.mark.parametrize(
    ("values", "method", "parts"),
    [
        ({}, "slug", ["", "objects", "mixture"]),
        ({"PROFILE": "demo"}, "slug_ws", ["ws", "ws-objects", "ws-mixture"]),
        ({"MULTI_METHOD": "slug_ws", "MULTI_PART": "ws"}, "slug_ws", ["ws", "ws-objects", "ws-mixture"]),
        ({"MULTI_METHOD": "slug_w"}, "slug_w", ["slug_w", "slug_w-objects", "slug_w-mixture"]),
        ({"PROFILE": "demo", "MULTI_METHOD": "slug", "MULTI_PART": ""}, "slug", ["", "objects", "mixture"]),
    ],
)
def test_several_at_once_by_another_method_has_folders_of_its_own(several, values, method, parts):
    done = several(**values)
    assert [given(c, "--part") for c in calls(done, "a5_unlearn_multi")] == [[p] for p in parts]
    for stage in ("a1_compute_grad", "a2_unlearn_slug"):
        found = [call[len(call) - call[::-1].index("--unlearn-method")] for call in calls(done, stage)]
        assert found == 3 * [method]


@pytest.mark.parametrize("script", ["run_multi.sh", "run_lasting.sh", "run_study.sh"])
def test_the_demo_builds_its_world_in_a_fresh_clone(script, tmp_path):
    done = shell(ROOT / "scripts" / script, "--dry-run", RESULT_DIR=tmp_path / "r")
    stages = re.findall(r"^\+ .*?src/\w+/(\w+)\.py", done.stdout, re.M)
    assert stages[:2] == ["build_world", "a0_create_tar"]


def test_the_reference_run_has_every_part(tmp_path):
    done = shell(ROOT / "scripts/make_reference.sh", "--dry-run", RESULT_DIR=tmp_path / "r")
    (call,) = calls(done, "a7_lasting")
    wanted = {"--out": "results/demo/lasting", "--readme": "results/demo/lasting/README.md", "--records": "results/demo"}
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


@pytest.mark.parametrize(("between", "count"), [(" ", 2), ("\n", 2), ("\n\n  ", 2), (" ", 0), ("\n", 1)])
def test_lists_of_folders_may_stand_on_several_lines(tmp_path, between, count):
    """The demo's GOLD is what ls prints, a folder a line."""
    folders, files = ([f"{tmp_path}/{what}-{i}" for i in range(count)] for what in ("gold", "aliases"))
    lists = {"GOLD": between.join(folders) or between, "ALIASES": between.join(files) or between}
    done = shell(ROOT / "scripts/run_lasting.sh", "--dry-run", RECORDS=tmp_path, **lists)
    assert done.returncode == 0, done.stderr
    (arguments,) = calls(done, "a7_lasting")
    for flag, wanted in (("--gold", folders), ("--aliases", files)):
        assert (given(arguments, flag) if flag in arguments else []) == wanted


def test_every_list_of_the_comparison_may_stand_on_several_lines(tmp_path):
    lists = {"METHODS": "ft\nga", "LR": "1e-6\n1e-5", "SELECTION": "1\n2", "COMPARE_NAMES": "A_B\nC"}
    done = shell(ROOT / "scripts/run_clip_comparison.sh", "--dry-run", NAMES="A_B C D", RESULT_DIR=tmp_path, **lists)
    (arguments,) = calls(done, "a3_unlearn_compare")
    for flag, wanted in (
        ("--celeb-name", "A_B C"),
        ("--unlearn-method", "ft ga"),
        ("--lr", "1e-6 1e-5"),
        ("--selection", "1 2"),
    ):
        assert given(arguments, flag) == wanted.split()
