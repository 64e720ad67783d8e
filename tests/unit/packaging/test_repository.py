"""What the repository holds: ignored outputs, licences, and paths that README and CI name."""

import csv
import os
import re
import shutil
import subprocess

from wrappers import ROOT


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_documents_name_only_paths_that_exist():
    text = "".join(p.read_text() for p in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
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
        data/models/mini-clip/open_clip_config.json src/slug/data/pairs.py results/demo/m-A.delta.safetensors
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
