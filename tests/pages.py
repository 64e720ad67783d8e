"""A finished result folder of a CLIP with records, step files and looks, as pages are made of; names as odd as they come."""

import base64
import io
import json

import hand_made
import pandas as pd
from PIL import Image

from slug.artifacts import records
from slug.reports import clip_tables
from slug.reports.pages import clip

ODD = '<b>&|"'
LAYERS = ("visual.proj", "visual.transformer.resblocks.1.mlp.c_fc.weight", "text_projection")


def picture():
    """An address that holds a picture."""
    kept = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(kept, "png")
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()


def looks(name):
    """What a2_unlearn_slug.py writes of a name besides its record."""
    rows = [
        {
            "name": n,
            "encoder": "vision" if n.startswith("vis") else "language",
            "importance": 0.1 / (i + 1),
            "alignment": 0.01,
        }
        for i, n in enumerate(LAYERS)
    ]
    before, after = [[name, 0.75], ["other", 0.25]], [["other", 0.875], [name, 0.125]]
    shown = [{"image": picture(), "name": n, "own": n == name, "before": before, "after": after} for n in (name, "other")]
    fared = [
        {"task": "identities", "name": n, "pictures": 40, "before": 30, "after": a} for n, a in (("near", 21), ("up", 33))
    ]
    cosines = {"before": [[0.9, 0.1], [0.2, 0.8]], "after": [[0.3, 0.1], [0.2, 0.7]], "pictures": 80}
    return {
        "name": name,
        "layers": rows,
        "names": [name, "other"],
        "cosines": cosines,
        "among": 1234,
        "pictures": shown,
        "by_name": fared,
    }


def folder(path, names=("a", ODD), methods=("slug",)):
    """Write a result folder of `names` by some of the methods slug and ga; returns its path."""
    made = [r for r in hand_made.clip_records() if r["method"] in methods]
    for record, name in ((r, n) for r in made for i, n in enumerate(names) if r["name"] == "abc"[i]):
        record |= {"name": name, "layer": "visual.proj" if record["method"] == "slug" else "lr 1e-05"}
        if record["method"] == "slug":
            front = [{"name": n, "encoder": "vision", "importance": 0.1, "alignment": 0.01} for n in LAYERS[:1]]
            record |= {"fronts": {"vision": front, "language": []}, "delta": f"{len(name)}.delta.safetensors"}
            record["winner_validation"] |= {"layer": "visual.proj", "objects_acc1": 0.79}
            (path / "looks").mkdir(parents=True, exist_ok=True)
            (path / "looks" / records.file_name("m", name, ".json")).write_text(json.dumps(looks(name)))
        for state in record["splits"]["validation"].values():
            state |= {"n_identities": 50, "n_objects": 50}
        steps = {"layer": ["", record["layer"], record["layer"]], "step": [0, 1, 2], "forget_acc1": [0.9, 0, 0]}
        frame = pd.DataFrame(steps | {"identities_acc1": [0.9, 0.8, 0.7], "objects_acc1": [0.8, 0.75, 0.5]})
        frame.to_csv(path / records.steps_file(record), index=False)
        (path / records.record_file(record)).write_text(json.dumps(record))
    return path


def page(path):
    """The text of the page of a result folder."""
    found = records.read_all(path)
    return clip.html(clip_tables.table(found), found, path)
