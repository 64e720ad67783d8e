"""Real data: the plan of a run and the commands of README's chapter."""

import importlib.util

import slug.torchvision_cpu  # noqa: F401  (before timm)

import pytest
import tiny

from slug.data.pairs import read_tar
from slug.errors import SlugError


def script(name):
    """The module of scripts/tools/{name}.py."""
    spec = importlib.util.spec_from_file_location(name, tiny.ROOT / "scripts" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------------- estimate


@pytest.fixture(scope="module")
def estimate():
    return script("estimate")


SAMPLE = {
    **{"model": "M", "device": "CPU", "measured": "2026-01-01", "parameters": 1000, "blocks": 4, "image_size": 10},
    **{"pair_s": 2.0, "gradient_batch_s": 16.0, "optimiser_s": 32.0, "pair_bytes": 100.0, "decode_s": 0.0},
    **{"vision_s": 1.0, "language_s": 0.1, "vision_flop": 10.0, "language_flop": 1.0, "caption_s": 0.5},
}


def plan(estimate, counts, *arguments):
    return {s.stage.split(",")[0]: s for s in estimate.plan(counts, SAMPLE, estimate.parse_args(list(arguments)))}


def test_the_plan_is_counts_by_seconds(estimate):
    counts = estimate.Counts(
        names=2, compared=1, captions=10, forget=6, retain=20, identities=8, objects=4, identity_texts=30, object_texts=70
    )
    small = ["--unlearn-method", "ft", "ga", "--lr", "1", "2", "--epochs", "3", "--forget-epochs", "5", "--front", "1"]
    found = plan(estimate, counts, *small)
    assert found["curation"].seconds == 5.0
    assert found["gradients"].seconds == 26 * (2 + 16 / 16)
    assert found["gradients"].flop == 26 * 3 * 11
    assert found["gradients"].disk == 3 * 4000 and found["gradients"].memory == 4 * 4000 + 16 * 100
    # Once all pictures and texts; a name: ten steps of a vision layer (half a tower, half of the pictures), ten of a
    # language layer (half a tower), and the report.
    assert found["slug"].seconds == pytest.approx(22 + 2 * (10 * (3 + 5) + 22))
    # ft: two rates, three epochs of the retain set; ga: two rates, five epochs of three pairs; each epoch is looked at.
    assert found["baselines"].seconds == pytest.approx(22 + 6 * (20 * (2 + 1) + 16) + 10 * (3 * (2 + 1) + 16))
    again = plan(estimate, counts._replace(compared=0), *small)
    assert again["baselines"].seconds == 0


def test_counts_are_of_what_is_there_else_the_papers(estimate, standin, tmp_path):
    names = ["--celeb-name", "Ann_Bo"]
    there = ["--train-data", str(standin / "laion/laion400m/00000.tar"), "--laion-dir", str(standin / "laion/laion400m")]
    there += ["--val-data", str(standin / "celeba"), "--imagenet-val", str(standin / "ImageNet/val")]
    found = estimate.count(estimate.parse_args([*names, *there, "--imagenet-share", "1", "--tar-dir", str(tmp_path)]))
    assert found.assumed == ("1 forget sets of 500",) and found.forget == 500
    assert found.retain == len(read_tar(standin / "laion/laion400m/00000.tar"))
    assert found.objects == len(list((standin / "ImageNet/val").glob("*/*"))) and found.object_texts == 998 * 7
    assert found.identities == len(list((standin / "celeba/img_align_celeba").iterdir()))
    nowhere = [f"--{flag}={tmp_path}/none" for flag in "tar-dir train-data val-data imagenet-val laion-dir".split()]
    found = estimate.count(estimate.parse_args([*names, *nowhere]))
    assert (found.retain, found.objects, found.identity_texts) == (7900, 2500, 10177) and len(found.assumed) == 6


def test_a_sample_is_measured_once_and_kept(estimate, tiny_clip, tmp_path, capsys, monkeypatch):
    call = ["--model", f"local-dir:{tiny_clip / 'open_clip'}", "--result-dir", str(tmp_path), "--device", "cpu"]
    estimate.main([*call, "--stored"])
    assert "no estimate" in capsys.readouterr().out and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(estimate, "timed", lambda work, *_, **__: work() is None or 1.0)
    estimate.main(call)
    assert "measured now" in capsys.readouterr().out
    sample = estimate.files.read_json(tmp_path / "estimate" / "open_clip-cpu.json")
    clip = tiny.load(tiny_clip)
    assert sample["parameters"] == sum(p.numel() for p in clip.parameters.values()) and sample["pair_bytes"] > 0
    monkeypatch.setattr(estimate, "measure", None)
    for more in ([], ["--stored"]):
        estimate.main([*call, *more])
        assert "measured before" in capsys.readouterr().out


def test_readmes_estimate_is_what_the_command_prints(estimate, tmp_path, capsys):
    readme = (tiny.ROOT / "README.md").read_text()
    block = readme.partition("<!-- estimate -->\n")[2].partition("\n<!-- /estimate -->")[0]
    nowhere = [f"--{flag}={tmp_path}/none" for flag in "tar-dir train-data val-data imagenet-val laion-dir".split()]
    estimate.main(["--stored", "--sample", str(estimate.COMMITTED / "ViT-B-32-cpu.json"), *nowhere])
    assert block and capsys.readouterr().out.partition("\n")[2].strip() == block


# ------------------------------------------------------------------------------------------- README's chapter, followed


def test_readmes_commands_are_found_by_chapter():
    text = "## A\n```bash\nbash scripts/a.sh   # says\nls\n```\nsee `bash scripts/a.sh` and `X=1 python src/b.py --c`\n"
    text += "## B\n`bash scripts/d.sh`"
    found = [("A", "bash scripts/a.sh", True), ("A", "bash scripts/a.sh", False)]
    found += [("A", "X=1 python src/b.py --c", False), ("B", "bash scripts/d.sh", False)]
    assert script("readme_commands").commands(text) == found


def test_the_chapter_prepares_checks_plans_and_runs():
    found = script("readme_commands").commands((tiny.ROOT / "README.md").read_text())
    chapter = [command for title, command, block in found if title == "Real data" and block]
    wanted = ["check_data.py", "valprep.sh", "prepare_celeba.sh", "run_all_clip.sh --dry-run", "run_all_clip.sh"]
    pipelines = ["a0_create_prompts_uncanvas.py", "run_uncanvas.sh", "run_compute_grad_sd.sh", "run_sd.sh"]
    assert [next(w for w in wanted + pipelines if c.endswith(w)) for c in chapter if "zipfile" not in c] == [
        *wanted[:3],
        *wanted[:1],
        *wanted[3:],
        *pipelines,
    ]


def test_following_writes_commands_and_what_they_said(tmp_path):
    follow = script("readme_commands").follow
    (tmp_path / "src").mkdir()
    record = tmp_path / "record.md"
    follow(["printf 'a 5%%|#| 1/2\\rwhole\\n\\x1b[A' && echo $PWD/data"], tmp_path, record)
    text = record.read_text()
    assert "whole" in text and "5%|" not in text and "\x1b" not in text and str(tmp_path) not in text
    with pytest.raises(SlugError, match="failed on the stand-ins: false"):
        follow(["echo first", "false", "echo never"], tmp_path, record)
    assert "exit code 1" in record.read_text() and "never" not in record.read_text()
