"""SLUG as a technique of eval-unlearn: by itself, and by eval-unlearn's own runner where that package is installed."""

import importlib.util
import json
import tomllib
from importlib import metadata

import numpy as np
import pytest
import tiny
import torch
from wrappers import ROOT

import slug
from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.eval_unlearn import SlugTechnique

PROMPTS = ["a bell in Noto", "a key"]
FEW = {"num_inference_steps": 2, "guidance_scale": 1.0, "device": "cpu"}
INSTALLED = pytest.mark.skipif(not importlib.util.find_spec("eval_unlearn"), reason="eval-unlearn is not installed")


@pytest.fixture(scope="module")
def edited(tiny_pipeline, tmp_path_factory):
    """(the delta of a pipeline, the pipeline's folder, its folder with the delta applied)."""
    folder = tmp_path_factory.mktemp("edited")
    model = tiny.load_pipeline(tiny_pipeline)
    name = next(n for n in model.candidates() if "fc1.weight" in n)
    edit = Edit({name: torch.randn(model.tensors[name].shape, generator=torch.Generator().manual_seed(0))}, name, 1.0)
    deltas.save(folder / "bell.safetensors", model, edit.changes, name="bell", layer=name, step=1.0, metrics={})
    source = str(tiny_pipeline / "pipeline")
    return (
        str(folder / "bell.safetensors"),
        source,
        slug.apply(str(folder / "bell.safetensors"), source, str(folder / "out")),
    )


def pixels(pictures):
    return np.stack([np.asarray(p) for p in pictures])


def plain(folder, seeds):
    """Pictures by diffusers alone."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    how = {"num_inference_steps": 2, "guidance_scale": 1.0}
    made = [pipe(p, generator=torch.Generator().manual_seed(s), **how) for p, s in zip(PROMPTS, seeds, strict=True)]
    return pixels([m.images[0] for m in made])


def test_pictures_are_those_of_the_edited_folder(edited):
    delta, source, folder = edited
    made = pixels(SlugTechnique(model_id=source, delta=delta, **FEW).generate(PROMPTS, seed=5))
    assert np.array_equal(made, plain(folder, [5, 6])) and not np.array_equal(made, plain(source, [5, 6]))


@pytest.mark.parametrize("several", [False, True])
def test_one_delta_or_a_list_of_them_or_a_folder_with_edits(edited, several):
    delta, source, folder = edited
    given = SlugTechnique(model_id=source, delta=[delta] if several else delta, erase_concept="bell", **FEW)
    kept = SlugTechnique(model_id=folder, **FEW)
    assert np.array_equal(*(pixels(t.generate(PROMPTS, seed=1)) for t in (given, kept)))


def test_settings_of_a_call_come_before_those_of_the_configuration(edited):
    technique = SlugTechnique(model_id=edited[2], **FEW)
    more = pixels(technique.generate(PROMPTS[:1], seed=1, num_inference_steps=4))
    assert not np.array_equal(more, pixels(technique.generate(PROMPTS[:1], seed=1)))
    assert technique.generate([], seed=1) == [] and len(technique.generate(PROMPTS[:1])) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_id": "SOURCE"}, "has no edits, and no delta is given: nothing would be forgotten"),
        ({"model_id": "SOURCE", "deltas": "x"}, "has no setting deltas; it has delta, device,"),
        ({"delta": "x"}, "needs model_id"),
        ({"model_id": "SOURCE", "delta": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"model_id": "no/such-pipeline", "delta": "x"}, "there is no folder no/such-pipeline"),
    ],
)
def test_what_cannot_be_run_is_said(edited, config, said):
    given = {k: edited[1] if v == "SOURCE" else v for k, v in config.items()}
    with pytest.raises(SlugError, match=said):
        SlugTechnique(**given)


def test_the_entry_point_names_the_class():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["eval_unlearn.techniques"]
    assert metadata.EntryPoint("slug", about["slug"], "eval_unlearn.techniques").load() is SlugTechnique


@INSTALLED
@pytest.mark.parametrize("technique", ["slug", "free_run"])
def test_eval_unlearns_runner_runs_the_plugin_and_an_edited_folder(edited, tmp_path, monkeypatch, technique):
    """With the entry point as pip installs it, and a metric that keeps what it sees."""
    delta, source, folder = edited
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[eval_unlearn.techniques]\nslug = slug.eval_unlearn:SlugTechnique\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners.single_benchmark_runner import SingleBenchmarkRunner
    from eval_unlearn.types import Dataset, MetricResult

    class Keeps:
        def load_dataset(self):
            return [Dataset(PROMPTS[:1], {"source": "here"}), Dataset(PROMPTS[1:], {"source": "here"})]

        def update(self, images, prompts, metadata):
            seen.extend(images)

        def compute(self):
            return MetricResult("keeps", float(len(seen)))

    seen = []
    register_metric("keeps")(Keeps)
    config = {"model_id": source, "delta": delta} if technique == "slug" else {"model_id": folder}
    run = SingleBenchmarkRunner(technique, "keeps", config | FEW, {}, output_dir=str(tmp_path / "out"), seed=7)
    run.run()
    assert np.array_equal(pixels(seen), plain(folder, [7, 7]))  # each batch begins at the seed
    reports = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("*_report.json")]
    assert reports and all(r["metric_result"]["value"] == 2 for r in reports)
