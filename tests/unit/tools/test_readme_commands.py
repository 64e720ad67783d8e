"""The commands of the documents, found and followed."""

import pytest
import tiny

from slug.errors import SlugError


def test_commands_are_found_by_chapter():
    text = "## A\n```bash\nbash scripts/a.sh   # says\nls\n```\nsee `bash scripts/a.sh` and `X=1 python src/b.py --c`\n"
    text += "## B\n`bash scripts/d.sh`"
    found = [("A", "bash scripts/a.sh", True), ("A", "bash scripts/a.sh", False)]
    found += [("A", "X=1 python src/b.py --c", False), ("B", "bash scripts/d.sh", False)]
    assert tiny.script("tools/readme_commands").commands(text) == found


def test_the_chapter_prepares_checks_plans_and_runs():
    found = tiny.script("tools/readme_commands").commands((tiny.ROOT / "docs/reproduce.md").read_text())
    chapter = [command for title, command, block in found if title == "Real data" and block]
    wanted = ["check_data.py", "valprep.sh", "prepare_celeba.sh", "run_all_clip.sh --dry-run", "run_all_clip.sh"]
    pipelines = ["a0_create_prompts_uncanvas.py", "run_uncanvas.sh", "run_compute_grad_sd.sh", "run_sd.sh"]
    assert [next(w for w in wanted + pipelines if c.endswith(w)) for c in chapter if "zipfile" not in c] == [
        *wanted[:3],
        *wanted[:1],
        *wanted[3:],
        *pipelines,
    ]


@pytest.fixture
def follow(tmp_path):
    (tmp_path / "src").mkdir()
    return lambda commands: tiny.script("tools/readme_commands").follow(commands, tmp_path, tmp_path / "record.md")


def test_the_record_has_what_commands_said_without_progress_and_paths(follow, tmp_path):
    follow(["printf 'a 5%%|#| 1/2\\rwhole\\n\\x1b[A' && echo $PWD/data"])
    text = (tmp_path / "record.md").read_text()
    assert "whole" in text and "5%|" not in text and "\x1b" not in text and str(tmp_path) not in text


def test_a_command_that_fails_is_the_last_one(follow, tmp_path):
    with pytest.raises(SlugError, match="failed on the stand-ins: false"):
        follow(["echo first", "false", "echo never"])
    text = (tmp_path / "record.md").read_text()
    assert "exit code 1" in text and "never" not in text


def test_commands_of_the_package_are_found_too():
    text = "## A\n```bash\nslug forget --name X\n```\n`slug methods`, `slug_w`, `slug.load`"
    found = [("A", "slug forget --name X", True), ("A", "slug methods", False)]
    assert tiny.script("tools/readme_commands").commands(text) == found
