"""Edits from 40 pictures beside the demo's: what is drawn, and what the table says."""

from types import SimpleNamespace

import pandas as pd
import tiny

tool = tiny.script("tools/measure_own_pictures")
ROW = {"name": "Lion", "layer": "visual.proj", "demo_layer": "visual.proj", "step": 1.5, "demo_step": 1.0, "n_forget": 40}
ROW |= {"original_acc1": 0.6, "forget_acc1": 0.0, "demo_forget_acc1": 0.025}
ROW |= {f"identities_change{e}": v for e, v in (("", -0.0165), ("_low", -0.02), ("_high", 0.001))}
ROW |= {f"objects_change{e}": v for e, v in (("", 0.004), ("_low", 0.001), ("_high", 0.006))}


def test_pictures_are_drawn_by_the_seed_and_lie_in_the_folder(tmp_path):
    tar = tiny.write_pairs(tmp_path / "Lion.tar", [f"a Lion {i}" for i in range(9)]) or tmp_path / "Lion.tar"
    drawn = []
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        world = SimpleNamespace(gradients=SimpleNamespace(tar=lambda name: tar), run=SimpleNamespace(seed=seed))
        (tmp_path / folder).mkdir()
        tool.pictures(world, "Lion", 4, tmp_path / folder)
        drawn.append({p.name for p in (tmp_path / folder).iterdir()})
    assert len(drawn[0]) == 4 and drawn[0] == drawn[1] != drawn[2]


def test_the_table_counts_names_and_pairs_differences():
    text = tool.report(pd.DataFrame([ROW, ROW | {"name": "Owl", "forget_acc1": 0.15}]), 40)
    assert "1 of 2 names have at most 2%" in text
    assert (
        "| Lion | `proj` | `proj` | 1.5, 1 | 60.0 | 0.0, 2.5 | 40 | -1.65 (-2.00 to +0.10) | +0.40 (+0.10 to +0.60) |"
        in text
    )
