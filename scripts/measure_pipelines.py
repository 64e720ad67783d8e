#!/usr/bin/env python
"""Stable Diffusion pipelines through the stages b0 to b2 and back, at their true size, untrained.

Example: python scripts/measure_pipelines.py                    both; SD 2.1 wants 16 GB of memory and 10 GB of disk
         python scripts/measure_pipelines.py --only sd15

Configurations are those of SD 1.5 with ViT-L/14 and of SD 2.1 with ViT-H/14, of whose 24 text blocks it takes 23; weights
are drawn, so nothing is downloaded, and pictures are noise. The stages' own commands run, with few pictures and denoising
steps: forget set (512 px), gradients, one step a front layer (128 px) judged by the unedited CLIP, delta into a folder
that diffusers loads, and the adapter through load_lora_weights. Writes pipelines.csv to --out, a row a pipeline and stage:
seconds and peak memory of its process. Rows that are there are kept.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before diffusers and transformers)

import diffusers
import pandas as pd
import torch
from measure_families import write_hugging_face
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from slug import canvas, cli, deltas, files
from slug.errors import SlugError

UNETS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "sample_size": 96,
    },
}
TEXT_BLOCKS = {"sd15": 12, "sd21": 23}
OBJECTS = ("mickey_mouse", "avocado_chair")


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=UNETS, default=list(UNETS), help="these pipelines")
    parser.add_argument("--out", default="results/standin", help="folder to write")
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    return parser.parse_args(argv)


def write(name, folder):
    """clip/ and pipeline/ of one of UNETS, untrained. Returns the pipeline's number of parameters."""
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
        scheduler=diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1),
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


def measure(args, name, folder):
    """Rows of pipelines.csv of one pipeline."""
    parameters = write(name, folder)
    python, sd = sys.executable, files.ROOT / "src/sd"
    common = ["--device", args.device, "--seed", args.seed, "--workers", args.workers, "--result-dir", folder / "results"]
    pipeline = ["--pipeline", folder / "pipeline", "--clip-model-id", folder / "clip", "--guidance", 1]
    tars = ["--tar-dir", folder / "tars"]
    concept, other = OBJECTS
    prompts = folder / "prompts.csv"
    asked = [canvas.Request(half, "", thing, seed) for half, seed in (("select", 1000), ("report", 0)) for thing in OBJECTS]
    canvas.write_requests(prompts, asked)
    b0 = [python, sd / "b0_generate_forget_set.py", *pipeline, *tars, "--image-dir", folder / "pictures", *common]
    b0 += ["--object", *OBJECTS, "--count", 2, "--size", 512, "--denoising-steps", 1, "--generate-batch-size", 2]
    gradient = ["--train-data", folder / f"tars/{other}.tar", "--batch-size", 2]
    b1 = [python, sd / "b1_compute_grad.py", "--celeb-name", concept, "--clip-model-id", folder / "clip", *tars, *gradient]
    b2 = [python, sd / "b2_unlearn_sd.py", *pipeline, *tars, *gradient, *common, "--object", concept, "--prompts", prompts]
    b2 += ["--select", "clip", "--evaluations", 1, "--size", 128, "--denoising-steps", 1, "--wanted", 0]
    rows = []

    def row(stage, what, seconds, megabytes):
        rows.append({"pipeline": name, "stage": stage, "seconds": seconds, "peak_mem_mb": megabytes, "what": what})

    row("b0", "4 pictures of 512 px, 1 denoising step", *timed(b0))
    row("b1", "forget and retain gradient, 2 pairs each", *timed([*b1, *common]))
    spent = timed(b2)
    record = files.read_json(next((folder / "results/sd").glob("*.json")))
    (layer, step), *_ = record["chosen"]
    row(
        "b2",
        f"{record['n_candidates']} candidates; kept {layer} {step:.3g}, {record['params_share']:.2%} of weights",
        *spent,
    )
    delta = folder / "results/sd" / record["delta"]
    apply = [
        python,
        files.ROOT / "src/clip/a2_unlearn_slug.py",
        "apply",
        "--delta",
        delta,
        "--model-dir",
        folder / "pipeline",
    ]
    row("apply", f"delta of {delta.stat().st_size / 1e6:.1f} MB", *timed([*apply, "--out", folder / "edited"]))
    edit, _ = deltas.read(delta)
    check(folder, record, edit)
    row("parameters", f"{parameters} in the pipeline", float("nan"), float("nan"))
    return rows


def check(folder, record, edit):
    """The edited folder's text tower and the adapter's give the same states, other than the original's. Else SlugError."""
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


def main(argv=None):
    args = parse_args(argv)
    path = files.resolve(args.out) / "pipelines.csv"
    rows = pd.read_csv(path).to_dict("records") if path.is_file() and not args.force else []
    for name in tqdm([n for n in args.only if n not in {r["pipeline"] for r in rows}], unit="pipeline"):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(args, name, Path(folder))
        files.write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    print(f"-> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
