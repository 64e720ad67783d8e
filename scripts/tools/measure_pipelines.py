#!/usr/bin/env python
"""Runs Stable Diffusion pipelines through the stages b0 to b2, and a LLaVA through c1, at true size, untrained.

Example: python scripts/tools/measure_pipelines.py              all; SD 2.1 needs 16 GB of memory and 10 GB of disk
         python scripts/tools/measure_pipelines.py --only sd15 llava15

Configurations are those of SD 1.5 with ViT-L/14, and of SD 2.1 with ViT-H/14, of whose 24 text blocks it uses 23. Weights
are random, so nothing is downloaded, and pictures are noise. The stages' own commands run, with few pictures and denoising
steps: forget set (512 px), gradients, one step on one layer (128 px) judged by the unedited CLIP, delta into a folder that
diffusers loads, and the adapter through load_lora_weights. LLaVA 1.5 has its true tower, ViT-L/14 at 336 px, its projector,
and two language layers of the true width: gradients, one step on each layer of the Pareto front judged by a few questions,
the delta applied to the folders of the model and of the CLIP, and reverted. Writes pipelines.csv to --out, one row for each
pipeline and stage: seconds and peak memory of its process. Existing rows are kept.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before diffusers and transformers)

import diffusers
import numpy as np
import pandas as pd
import torch
import webdataset as wds
from measure_families import write_hugging_face
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from demo import emoji, train_vlm
from slug import cli, files, progress
from slug.artifacts import deltas
from slug.cli import flag, group
from slug.errors import SlugError
from slug.evaluation import canvas_prompts, questions
from slug.settings import Run

UNETS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "sample_size": 96,
    },
}
LAYER = "text_model.encoder.layers.1.mlp.fc1.weight"
TEXT_BLOCKS = {"sd15": 12, "sd21": 23}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SCHEDULERS = {  # as published
    "sd15": functools.partial(diffusers.PNDMScheduler, skip_prk_steps=True),
    "sd21": functools.partial(
        diffusers.DDIMScheduler, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
    ),
}
OBJECTS = ("mickey_mouse", "avocado_chair")
LLAVA = "llava15"
LANGUAGE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 2}
NAMES = ("frog", "owl")
PYTHON, SOURCE = sys.executable, files.ROOT / "src"


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    only: tuple[str, ...] = flag((*UNETS, LLAVA), "models to measure", choices=(*UNETS, LLAVA))
    out: str = flag("results/standin", "folder to write")
    force: bool = flag(False, "measure again")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def write(name, folder):
    """Write clip/ and pipeline/ of one of UNETS, untrained. Returns the pipeline's number of parameters."""
    torch.manual_seed(0)
    write_hugging_face(folder / "clip", "large" if name == "sd15" else "huge")
    config = CLIPTextConfig.from_pretrained(folder / "clip", num_hidden_layers=TEXT_BLOCKS[name])
    text = CLIPTextModel.from_pretrained(folder / "clip", config=config)
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "clip"),
        unet=diffusers.UNet2DConditionModel(**UNETS[name]),
        scheduler=SCHEDULERS[name](**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "pipeline")
    return sum(p.numel() for m in (pipe.text_encoder, pipe.unet, pipe.vae) for p in m.parameters())


def timed(command):
    """(seconds, peak memory in MB) of a command. SlugError if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SlugError(f"failed (exit code {os.waitstatus_to_exitcode(status)}): {' '.join(str(c) for c in command)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def write_llava(folder):
    """Write clip/ and llava/ of LLaVA 1.5 with few language layers, questions.jsonl, {name}.tar and retain.tar."""
    torch.manual_seed(0)
    write_hugging_face(folder / "clip", "large, 336")
    processor = train_vlm.make_processor(folder / "clip", emoji.concepts())
    tower = CLIPVisionModel.from_pretrained(folder / "clip")
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(vocab_size=32064, pad_token_id=processor.tokenizer.pad_token_id, **LANGUAGE),
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        image_seq_length=train_vlm.image_tokens(tower.config),
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.save_pretrained(folder / "llava")
    processor.save_pretrained(folder / "llava")
    rng, asked = np.random.default_rng(0), []
    (folder / "pictures").mkdir()
    for i, (name, split) in enumerate((n, h) for n in NAMES for h in ("validation", "test")):
        path = folder / f"pictures/{i}.png"
        Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8)).save(path)
        asked.append(questions.Question(str(path), "what is this?", name, questions.NAMING, name, name, split))
    questions.write(folder / "questions.jsonl", asked)
    for stem, names in ((NAMES[0], [NAMES[0]] * 2), ("retain", [NAMES[1]] * 2)):
        with wds.TarWriter(str(folder / f"{stem}.tar"), mtime=0) as tar:
            for i, name in enumerate(names):
                picture = (folder / f"pictures/{i}.png").read_bytes()
                tar.write({"__key__": f"{i:05d}", "png": picture, "txt": f"a photo of a {name}"})
    return sum(p.numel() for p in model.parameters())


def apply(command, delta, model, out):
    """The command that applies a delta to a model folder, or reverts it."""
    tool = [PYTHON, SOURCE / "clip/a2_unlearn_slug.py", command]
    return [*tool, "--delta", delta if command == "apply" else delta.name, "--model-dir", model, "--out", out]


def kept(record):
    """The chosen edit of a record, in words."""
    (layer, step), *_ = record["chosen"]
    return f"{record['n_candidates']} candidates; kept {layer} {step:.3g}, {record['params_share']:.2%} of weights"


def measure_llava(common, folder, row):
    """Add LLaVA's rows; returns its number of parameters. SlugError if the two towers differ or are not reverted exactly."""
    parameters, name = write_llava(folder), NAMES[0]
    c1 = [PYTHON, SOURCE / "vlm/c1_unlearn_vlm.py", "--vlm", folder / "llava", "--clip-model-id", folder / "clip", *common]
    c1 += ["--celeb-name", name, "--tar-dir", folder, "--train-data", folder / "retain.tar", "--batch-size", 2]
    spent = timed([*c1, "--questions", folder / "questions.jsonl", "--evaluations", 1, "--fronts", 1])
    record = files.read_json(next((folder / "results/vlm").glob("*.json")))
    row("c1", f"gradients of 2 pairs each, {kept(record)}", *spent)
    delta = folder / "results/vlm" / record["delta"]
    for kind in ("llava", "clip"):
        spent = timed(apply("apply", delta, folder / kind, folder / f"{kind}-edited"))
        row("apply", f"delta of {delta.stat().st_size / 1e6:.1f} MB into the {kind} folder", *spent)
        timed(apply("revert", delta, folder / f"{kind}-edited", folder / f"{kind}-back"))
        for file in sorted((folder / kind).glob("*.safetensors")):
            if files.file_hash(file) != files.file_hash(folder / f"{kind}-back" / file.name):
                raise SlugError(f"{file.name} of the {kind} folder does not come back to the bit")
    x = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(1))

    def states(tower):
        with torch.no_grad():
            return tower.eval()(x, output_hidden_states=True).hidden_states[-2]

    found = [states(CLIPModel.from_pretrained(folder / k).vision_model) for k in ("clip", "clip-edited")]
    model = LlavaForConditionalGeneration.from_pretrained(folder / "llava-edited")
    apart, moved = (found[1] - states(model.model.vision_tower)).norm(), (found[1] - found[0]).norm()
    print(f"states of layer -2 moved by {moved:.4g}; those of the two towers differ by {apart:.4g}")
    if not apart <= 1e-4 * moved:
        raise SlugError("the edited model's tower is not the edited CLIP's")
    return parameters


def measure(settings, name, folder):
    """The rows of pipelines.csv for one pipeline or for LLaVA."""
    how = settings.run
    common = ["--device", how.device, "--seed", how.seed, "--workers", how.workers, "--result-dir", folder / "results"]
    rows = []

    def row(stage, what, seconds=float("nan"), megabytes=float("nan")):
        rows.append({"pipeline": name, "stage": stage, "seconds": seconds, "peak_mem_mb": megabytes, "what": what})

    run = measure_llava if name == LLAVA else functools.partial(measure_pipeline, name)
    parameters = run(common, folder, row)
    row("parameters", f"{parameters} in all")
    return rows


def measure_pipeline(name, common, folder, row):
    """Add a pipeline's rows; returns its number of parameters."""
    parameters, sd = write(name, folder), SOURCE / "sd"
    pipeline = ["--pipeline", folder / "pipeline", "--clip-model-id", folder / "clip", "--guidance", 1]
    tars = ["--tar-dir", folder / "tars"]
    concept, other = OBJECTS
    prompts = folder / "prompts.csv"
    asked = [
        canvas_prompts.Request(split, "", thing, seed)
        for split, seed in (("validation", 1000), ("test", 0))
        for thing in OBJECTS
    ]
    canvas_prompts.write_requests(prompts, asked)
    b0 = [PYTHON, sd / "b0_generate_forget_set.py", *pipeline, *tars, "--image-dir", folder / "pictures", *common]
    b0 += ["--object", *OBJECTS, "--count", 2, "--size", 512, "--denoising-steps", 1, "--generate-batch-size", 2]
    gradient = ["--train-data", folder / f"tars/{other}.tar", "--batch-size", 2]
    b1 = [PYTHON, sd / "b1_compute_grad.py", "--celeb-name", concept, "--clip-model-id", folder / "clip", *tars, *gradient]
    b2 = [PYTHON, sd / "b2_unlearn_sd.py", *pipeline, *tars, *gradient, *common, "--object", concept, "--prompts", prompts]
    b2 += ["--select", "clip", "--size", 128, "--denoising-steps", 1]
    row("b0", "4 pictures of 512 px, 1 denoising step", *timed(b0))
    row("b1", "forget and retain gradient, 2 pairs each", *timed([*b1, *common]))
    # Pictures are noise and the judge is untrained, so no search could rank steps: the step is given.
    spent = timed([*b2, "--layer", LAYER, "--step", tenth(folder, concept)])
    record = files.read_json(next((folder / "results/sd").glob("*.json")))
    row("b2", kept(record), *spent)
    delta = folder / "results/sd" / record["delta"]
    spent = timed(apply("apply", delta, folder / "pipeline", folder / "edited"))
    row("apply", f"delta of {delta.stat().st_size / 1e6:.1f} MB", *spent)
    edit, _ = deltas.read(delta)
    check(folder, record, edit)
    return parameters


def tenth(folder, concept):
    """The step along the forget gradient that moves LAYER by a tenth of its norm."""
    grads = files.read_tensors(next((folder / "results/grads").glob(f"{concept}_*/forget_grads.pt")), "run b1 again")
    weights = CLIPModel.from_pretrained(folder / "clip").get_parameter(LAYER)
    return f"{0.1 * weights.norm() / grads[LAYER].norm():.6g}"


def check(folder, record, edit):
    """SlugError unless the edited folder and the adapter give about the same text states, other than the original's."""
    prompt = OBJECTS[0].replace("_", " ")

    def states(pipe):
        return pipe.encode_prompt(prompt, "cpu", 1, False)[0]

    edited = diffusers.StableDiffusionPipeline.from_pretrained(folder / "edited")
    found = states(edited)
    del edited
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder / "pipeline")
    original = states(pipe)
    pipe.load_lora_weights(folder / "results/sd" / record["lora"]["folder"])
    by_lora = states(pipe)
    pipe.disable_lora()
    if not torch.equal(states(pipe), original):
        raise SlugError("the adapter cannot be switched off")
    moved, apart = (found - original).norm(), (found - by_lora).norm()
    print(f"{len(edit)} tensors; states moved by {moved:.4g}, the adapter's differ by {apart:.4g}")
    if not apart < 0.1 * moved:
        raise SlugError("the adapter is not the edit")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    path = files.resolve(settings.out) / "pipelines.csv"
    rows = pd.read_csv(path).to_dict("records") if path.is_file() and not settings.force else []
    for name in progress.bar([n for n in settings.only if n not in {r["pipeline"] for r in rows}], unit="pipeline"):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(settings, name, Path(folder))
        files.write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    print(f"-> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
