"""The estimate of a run on real data: counts by measured seconds."""

import pytest
import tiny

from slug.data.pairs import read_tar


@pytest.fixture(scope="module")
def estimate():
    """The module of scripts/tools/estimate.py."""
    return tiny.script("tools/estimate")


@pytest.fixture
def nowhere(tmp_path):
    """Flags for data that does not exist."""
    return [f"--{flag}={tmp_path}/none" for flag in "tar-dir train-data val-data imagenet-val laion-dir".split()]


SAMPLE = {
    **{"model": "M", "device": "CPU", "measured": "2026-01-01", "parameters": 1000, "blocks": 4, "image_size": 10},
    **{"pair_s": 2.0, "gradient_batch_s": 16.0, "optimiser_s": 32.0, "pair_bytes": 100.0, "decode_s": 0.0},
    **{"vision_s": 1.0, "language_s": 0.1, "vision_flop": 10.0, "language_flop": 1.0, "caption_s": 0.5},
}


GRID = ["--unlearn-method", "ft", "ga", "--lr", "1", "2", "--epochs", "3", "--forget-epochs", "5", "--front", "1"]


@pytest.fixture
def counts(estimate):
    return estimate.Counts(
        names=2, compared=1, captions=10, forget=6, retain=20, identities=8, objects=4, identity_texts=30, object_texts=70
    )


def plan(estimate, counts):
    """{stage: its row of the plan}."""
    return {s.stage.split(",")[0]: s for s in estimate.plan(counts, SAMPLE, estimate.parse_args(GRID))}


def test_curation_takes_seconds_by_captions(estimate, counts):
    assert plan(estimate, counts)["curation"].seconds == 5.0


def test_gradients_take_both_sets_once(estimate, counts):
    found = plan(estimate, counts)["gradients"]
    assert found.seconds == 26 * (2 + 16 / 16) and found.flop == 26 * 3 * 11
    assert found.disk == 3 * 4000 and found.memory == 4 * 4000 + 16 * 100


def test_slug_takes_ten_steps_of_a_layer_of_each_tower(estimate, counts):
    # Once all pictures and texts. Then for each name ten steps of a vision layer (half a tower, half of the pictures), ten
    # of a language layer (half a tower), and the report.
    assert plan(estimate, counts)["slug"].seconds == pytest.approx(22 + 2 * (10 * (3 + 5) + 22))


def test_baselines_take_their_grid(estimate, counts):
    # FT: two rates, three epochs of the retain set. GA: two rates, five epochs of three pairs. Each epoch is evaluated.
    wanted = 22 + 6 * (20 * (2 + 1) + 16) + 10 * (3 * (2 + 1) + 16)
    assert plan(estimate, counts)["baselines"].seconds == pytest.approx(wanted)


def test_without_names_to_compare_baselines_take_nothing(estimate, counts):
    assert plan(estimate, counts._replace(compared=0))["baselines"].seconds == 0


def test_data_that_is_there_is_counted(estimate, standin, tmp_path):
    flags = ["--train-data", standin / "laion/laion400m/00000.tar", "--laion-dir", standin / "laion/laion400m"]
    flags += ["--val-data", standin / "celeba", "--imagenet-val", standin / "ImageNet/val", "--tar-dir", tmp_path]
    flags += ["--celeb-name", "Ann_Bo", "--imagenet-share", 1]
    found = estimate.count(estimate.parse_args([str(f) for f in flags]))
    assert found.assumed == ("1 forget sets of 500",) and found.forget == 500
    assert found.retain == len(read_tar(standin / "laion/laion400m/00000.tar"))
    assert found.objects == len(list((standin / "ImageNet/val").glob("*/*"))) and found.object_texts == 998 * 7
    assert found.identities == len(list((standin / "celeba/img_align_celeba").iterdir()))


def test_data_that_is_missing_is_assumed_as_in_the_paper(estimate, nowhere):
    found = estimate.count(estimate.parse_args(["--celeb-name", "Ann_Bo", *nowhere]))
    assert (found.retain, found.objects, found.identity_texts) == (7900, 2500, 10177) and len(found.assumed) == 6


@pytest.fixture
def call(tiny_clip, tmp_path):
    """Flags for the tiny model."""
    return ["--model", f"local-dir:{tiny_clip / 'open_clip'}", "--result-dir", str(tmp_path), "--device", "cpu"]


def test_a_stored_estimate_measures_nothing(estimate, call, tmp_path, capsys):
    estimate.main([*call, "--stored"])
    assert "no estimate" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_a_sample_is_measured_once_and_kept(estimate, call, tiny_clip, tmp_path, capsys, monkeypatch):
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


def test_the_committed_estimate_is_what_the_command_prints(estimate, nowhere, capsys):
    page = (tiny.ROOT / "results/bench/README.md").read_text()
    block = page.partition("<!-- estimate -->\n")[2].partition("\n<!-- /estimate -->")[0]
    estimate.main(["--stored", "--sample", str(estimate.COMMITTED / "ViT-B-32-cpu.json"), *nowhere])
    assert block and capsys.readouterr().out.partition("\n")[2].strip() == block


@pytest.mark.parametrize(("protocol", "wanted"), [("paper", True), ("ours", False)])
def test_the_state_of_the_data_names_what_the_protocol_needs(estimate, nowhere, monkeypatch, capsys, protocol, wanted):
    monkeypatch.setattr(estimate, "sample_of", lambda settings: (None, None, False))
    estimate.main(["--data", "--protocol", protocol, *nowhere])
    said = capsys.readouterr().out
    assert "retain set" in said and ("membership shard" in said) == wanted
