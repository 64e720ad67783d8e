#!/usr/bin/env python
"""Runs the gradient pass, the Pareto fronts and a search step on every family of CLIP, at true size, untrained.

Example: python scripts/tools/measure_families.py                       all of FAMILIES; EVA01-g-14 wants 24 GB
         python scripts/tools/measure_families.py --only RN50 ViT-B-32
         python scripts/tools/measure_families.py --only ViT-L-14 --size paper --cache-gb 2    memory at the paper's size

Architectures come from the libraries' own configurations, so nothing is downloaded; pictures are noise. Each model runs in
its own process. Writes families.csv to --out: model, parameters, names of the layers that may be edited, Pareto front of
each encoder, seconds per gradient batch (mean of 2), batch size, peak memory of the gradient pass, of the search, and of
both, seconds per search step (mean of one vision and one language layer). Existing rows are kept. --readme fills the table
of layer names. With --size paper it writes memory.csv, with an evaluation of 10,177 names, 1,000 classes and 4,500 pictures;
the activations that the search keeps are bounded by --cache-gb.
"""

import functools
import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from benchmark_search import PAPER, Size, fixed_search

from slug import cli, files, models, progress, system
from slug.cli import flag, group
from slug.core import gradients, layers, losses
from slug.data.pairs import Pairs
from slug.errors import SlugError
from slug.evaluation import clip_tasks
from slug.reports import markdown
from slug.settings import Run

# {name: (what it stands for, pairs in a gradient batch, gradient checkpointing)}
FAMILIES = {
    "ViT-B-32": ("fused q, k, v", 16, False),
    "ViT-B-16": ("fused q, k, v", 16, False),
    "ViT-L-14": ("fused q, k, v", 16, False),
    "EVA01-g-14": ("timm vision tower of a billion parameters", 4, True),
    "RN50": ("ResNet", 16, False),
    "convnext_base": ("timm vision tower", 16, False),
    "roberta-ViT-B-32": ("Hugging Face text tower", 16, False),
    "openai/clip-vit-base-patch32": ("Hugging Face CLIP: q, k, v apart", 16, False),
    "openai/clip-vit-large-patch14": ("Hugging Face CLIP: q, k, v apart", 16, False),
}
SIZES = {"small": Size(names=100, classes=20, pictures=(32, 32), layers=2, steps=1), "paper": PAPER._replace(steps=1)}
FILES = {"small": "families.csv", "paper": "memory.csv"}


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    only: tuple[str, ...] = flag(tuple(FAMILIES), "models to measure", choices=tuple(FAMILIES))
    size: str = flag("small", "of the evaluation of the search", choices=tuple(SIZES))
    cache_gb: float = flag(-1.0, "GB of activations that the search may keep; below 0 a quarter of the free memory")
    out: str = flag("results/standin", "folder to write")
    readme: str = flag("", "Markdown file whose families block is filled from the rows")
    force: bool = flag(False, "measure again")
    here: bool = flag(False, "measure one model in this process and print its row as JSON")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def write_hugging_face(folder, name):
    """Write an untrained CLIPModel with CLIP's tokenizer.

    Args:
        name: with "large" in it the size of ViT-L/14, with "huge" that of ViT-H/14, else ViT-B/32, the library's default;
            with "336" in it pictures of 336 instead of 224 pixels.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    text, vision, width = {}, {}, 512
    if "large" in name:
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        vision |= {"num_hidden_layers": 24, "patch_size": 14}
        width = 768
    if "huge" in name:
        text = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
        vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32}
        text |= {"hidden_act": "gelu"}
        vision |= {"patch_size": 14, "hidden_act": "gelu"}
        width = 1024
    side = 336 if "336" in name else 224
    vision |= {"image_size": side}
    shared = {"projection_dim": width}
    config = CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=width)
    CLIPModel(config).save_pretrained(folder)
    words = SimpleTokenizer()
    named = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's, and CLIPTokenizer's
    files.write_json(folder / "vocab.json", {named.get(word, word): i for word, i in words.encoder.items()})
    merges = [" ".join(pair) for pair in words.bpe_ranks]
    files.write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=77).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)


def write_roberta(folder):
    """Write an untrained open_clip model folder whose text tower is transformers' RoBERTa, with a small tokenizer."""
    import open_clip
    from safetensors.torch import save_file
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaTokenizerFast

    text = folder / "text"
    text.mkdir()
    words = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words.train_from_iterator(open_clip.IMAGENET_CLASSNAMES, vocab_size=2000, special_tokens=special)
    words.save_model(str(text))
    RobertaTokenizerFast.from_pretrained(text).save_pretrained(folder)  # where open_clip looks for it
    RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1).save_pretrained(text)
    settings = open_clip.get_model_config("roberta-ViT-B-32")
    settings["text_cfg"] |= {"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_model_pretrained": False}
    files.write_json(folder / "open_clip_config.json", {"model_cfg": settings, "preprocess_cfg": {}})
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_hf=False)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")


def load(name, folder, device):
    """The models.Clip of one of FAMILIES with untrained weights."""
    if name.startswith("openai/"):
        write_hugging_face(folder, name)
        return models.load(clip_model_id=str(folder), device=device)
    if name.startswith("roberta"):
        write_roberta(folder)
        return models.load(f"local-dir:{folder}", device=device)
    return models.load(name, "random", device=device)


def patterns(clip):
    """{encoder: names of the layers that may be edited, {i} for the block's number, + between those that move together}."""
    out = {}
    for name, encoder in clip.candidates().items():
        group = " + ".join(re.sub(r"\.\d+(?=\.)", ".{i}", n) for n in clip.group(name))
        out.setdefault(encoder, {})[group] = None
    return {encoder: list(found) for encoder, found in out.items()}


def names_table(rows):
    """Markdown: the layer names of each family."""
    lines = ["| model | what it stands for | encoder | layers that may be edited |", "|---|---|---|---|"]
    for row in rows:
        for encoder in ("vision", "language"):
            names = ", ".join(f"`{n}`" for n in row[f"names_{encoder}"].split("; "))
            lines.append(f"| {row['model']} | {row['what']} | {encoder} | {names} |")
    return "\n".join(lines)


def measure(settings, name, folder):
    """One row of families.csv."""
    from open_clip import IMAGENET_CLASSNAMES

    device = system.settle(settings.run.device, settings.run.seed)
    clip = load(name, folder, device)
    what, batch, clip.checkpointing = FAMILIES[name]
    g = torch.Generator().manual_seed(settings.run.seed)
    images = torch.randint(0, 256, (2 * batch, 3, clip.side, clip.side), dtype=torch.uint8, generator=g)
    pairs = Pairs(images, IMAGENET_CLASSNAMES[: 2 * batch], [str(i) for i in range(2 * batch)], 0)
    system.reset_peak_memory(device)
    found, seconds = [], 0.0
    for loss in (losses.cosine_embedding, losses.contrastive):
        started = time.perf_counter()
        grads, _ = gradients.compute(clip, pairs, loss, batch_size=batch)
        seconds = seconds or time.perf_counter() - started
        path = folder / f"{loss.__name__}.pt"  # as between stages, so that no pass keeps the other's gradients in memory
        torch.save(grads, path)
        del grads
        found.append(torch.load(path, weights_only=True, mmap=True))
    fronts = layers.fronts(layers.figures(clip, *found))
    if not all(fronts.values()):
        raise SlugError(f"{name}: an encoder has no front: {fronts}")
    chosen = [front[0].name for front in fronts.values()]
    gradient_mb = system.peak_memory_mb(device)
    _, run, _ = fixed_search(settings.run, clip, folder, SIZES[settings.size], batch_size=32, chosen=chosen)
    gc.collect()
    system.reset_peak_memory(device)
    _, rows, _ = run(functools.partial(clip_tasks.Evaluation, cache_gb=settings.cache_gb))
    search_mb = system.peak_memory_mb(device)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in clip.parameters.values()),
        **{f"names_{encoder}": "; ".join(found) for encoder, found in patterns(clip).items()},
        "front_vision": " ".join(r.name for r in fronts["vision"]),
        "front_language": " ".join(r.name for r in fronts["language"]),
        "gradient_s": seconds / 2,
        "peak_mem_mb": max(gradient_mb, search_mb),
        "gradient_mem_mb": gradient_mb,
        "search_mem_mb": search_mb,
        "step_s": sum(r.scores["seconds"] for r in rows) / len(rows),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "batch_size": batch,
        "grad_checkpointing": clip.checkpointing,
        "what": what,
    }


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    if settings.here:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(settings, settings.only[0], Path(folder))))
        return
    path = files.resolve(settings.out) / FILES[settings.size]
    rows = pd.read_csv(path).to_dict("records") if path.is_file() and not settings.force else []
    for name in progress.bar([n for n in settings.only if n not in {r["model"] for r in rows}], unit="model"):
        command = [
            sys.executable,
            __file__,
            "--here",
            "--only",
            name,
            "--device",
            settings.run.device,
            "--seed",
            str(settings.run.seed),
            "--size",
            settings.size,
            "--cache-gb",
            str(settings.cache_gb),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SlugError(f"{name} could not be measured (exit code {done.returncode}); what was measured is in {path}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        rows.sort(key=lambda r: list(FAMILIES).index(r["model"]))
        files.write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    if settings.readme:
        markdown.fill_blocks(settings.readme, {"families": names_table(rows)})
    print(f"-> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
