"""Tables and records made by hand, with figures that are easy to add up. Needs no torch."""

import pandas as pd

ZERO = [0.0] * 6
STEADY, WILD = [-0.5, -0.6, -0.4, -0.5, -0.6, -0.4], [-9.0, 9.0, -9.0, 9.0, -9.0, 9.0]


def study_rows(**variants):
    """Rows of a study: variant=(forget accuracies, mean retained changes in points) of names a, b, c, ...; None: failed."""
    rows = []
    for variant, (forget, retain) in variants.items():
        for i, (f, r) in enumerate(zip(forget, retain, strict=True)):
            row = {
                "name": "abcdefghij"[i],
                "kind": "identity",
                "variant": variant,
                "error": None if f is not None else "x: y",
            }
            if f is not None:
                row |= {"forget_acc1": f, "original_forget_acc1": 0.8, "n_forget": 40, "run_s": 36.0, "layer": "l"}
                row |= {"identities_change": r / 100 + 0.001, "objects_change": r / 100 - 0.001, "validation_forgets": True}
                row |= {"n_layers": 2, "n_candidates": 9, "n_pairs": 30, "params_share": 0.1, "seconds": 3.0, "model": "m"}
            rows.append(row)
    return rows


def study_table(**variants):
    """`study_rows` as the table of a study."""
    return pd.DataFrame(study_rows(**variants)).astype({"error": object})


def clip_records():
    """Records of three identities and two methods."""
    out = []
    for i, name in enumerate(("a", "b", "c")):
        for method, change in (("slug", -0.01), ("ga", -0.30)):
            figures = {
                "forget_acc1": 0.0,
                "forget_acc5": 0.1 * i,
                "identities_acc1": 0.9 + change,
                "objects_acc1": 0.8 + change,
                "identities_change": change + 0.001 * i,
                "objects_change": change,
                "mia_mean": 60.0 + i,
                "mia_others_mean": 50.0,
                "n_forget": 40,
            }
            for task in ("identities", "objects"):
                figures |= {f"{task}_change_low": change - 0.01, f"{task}_change_high": change + 0.01}
            figures |= {"forget_upper": 0.072, "n_drawings": 4}
            original = {"forget_acc1": 0.9, "identities_acc1": 0.9, "objects_acc1": 0.8, "mia_mean": 75.0, "n_forget": 40}
            costs = {"seconds": 10.0, "gradient_s": 2.0, "search_s": 8.0, "shared_s": 3.0, "peak_mem_mb": 100}
            costs["delta_bytes"] = 1000 * (i + 1)
            row = {"method": method, "name": name, "kind": "identity", "model": "m", "params_share": 0.5, "n_candidates": 20}
            row |= {"layer": "x", "step": 1, "seed": 0, "inside_grid": not (method == "ga" and name == "c")}
            splits = {split: {"original": dict(original), method: dict(figures)} for split in ("validation", "test")}
            chosen = {k: figures[k] for k in ("forget_acc1", "identities_acc1", "objects_acc1")} | {"step": 1}
            made_with = {"settings": {"select_pictures": 4000, "trace": 0}, "winner_validation": chosen}
            out.append(row | costs | made_with | {"splits": splits})
    return out


def durability_rows(test, values, setting="x", method="slug", chance=0.0, **more):
    """Rows of results/lasting/runs.parquet: a name for each (value, original) of `values`, of 40 pictures."""
    rows = []
    for i, (value, original) in enumerate(values):
        row = {"name": "abcdefgh"[i], "method": method, "test": test, "setting": setting, "value": value, "n": 40}
        row |= {"correct": round(40 * value), "original": original, "chance": chance, "n_drawings": 4, "relearn_lr": 1e-4}
        retained = {f"{t}_acc1": 0.5 for t in ("identities", "objects")} | {"n_identities": 100, "n_objects": 100}
        retained |= {"original_identities": 0.6, "original_objects": 0.5}
        rows.append(row | retained | more)
    return rows
