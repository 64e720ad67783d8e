#!/usr/bin/env python
"""Does a change of the code leave every answer as it was? Run the stages of two checkouts on the same inputs and compare.

Example: python scripts/tools/compare_runs.py prepare ../before results/inputs
         python scripts/tools/compare_runs.py record ../before results/inputs results/answers-before
         python scripts/tools/compare_runs.py record . results/inputs results/answers-after --part tiny --only clip sd
         python scripts/tools/compare_runs.py compare results/answers-before results/answers-after
`prepare` makes data and models once, by the code of one checkout. `record` runs every line of CALLS by its command line, as
a user would, and imports nothing of the checkout; a group of calls works in OUT/{group}. `compare` reads both trees: tensors
to the bit; tables, records, reports and logs but for times, memory, versions and hashes of these; plots have to be there.
What was renamed on purpose stands in the tables below and counts as equal.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors import safe_open

ENVIRONMENT = {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "NO_ALBUMENTATIONS_UPDATE": "1"}
ENVIRONMENT |= {"GOMP_SPINCOUNT": "1000", "MALLOC_TRIM_THRESHOLD_": "4294967296"}  # as scripts/common.sh: only faster
WHERE = "output/where"  # of a group: the folder that it worked in, which its records name
FOLDERS = {"a": "clip", "b": "sd", "c": "vlm"}  # of src/, by the first letter of a stage

# ------------------------------------------------------------------------------------------------------------- renames

# Flags: {old: new}. Calls say the old one; a stage whose file has the new one is given that.
FLAGS = {"--report-seeds": "--test-seeds", "--select-seeds": "--validation-seeds"}
# Columns and keys: {old: new}.
KEYS = {"half": "split", "halves": "splits"}
KEYS |= {"original_select": "original_validation", "winner_select": "winner_validation"}
KEYS |= {"report_seeds": "test_seeds", "select_seeds": "validation_seeds"}
KEYS |= {"select_forget_acc1": "validation_forget_acc1", "select_forgets": "validation_forgets"}
KEYS |= {"not_whitened": "not_preconditioned", "n_left_select": "n_left_validation"}
LISTS = {"unlearn_method"}  # keys whose one value is now a list of one
# Values of a column, and keys of a dict, by the new name of the column or of the key that holds the dict: {old: new}.
SPLITS = {"select": "validation", "report": "test"}
VALUES: dict[str, dict[str, str]] = {"split": SPLITS, "splits": SPLITS}
CONVENTION = "{} gradient of the forget loss 1 - cos; a positive step ADDS it"
VALUES["convention"] = {CONVENTION.format("whitened"): CONVENTION.format("preconditioned")}
# Words in reports: (pattern, replacement).
WORDS = [(r"\breport half\b", "test split"), (r"\bselect half\b", "validation split")]
# Paths of result files: (pattern, replacement). A folder of pictures is named by a hash of the delta file among others, a
# comparison's log by the day.
FILES = [(r"(/pictures/[^/]+)-[0-9a-f]{16}/", r"\1/"), (r"/compare/\d{8}_", "/compare/")]

# Files left out: what the stages printed, the parts of tables, and what only saves time in the next run.
SKIPPED = re.compile(r"^[^/]+/output/|/(parts|cache)/")
# Keys and columns that no two runs share.
VOLATILE = re.compile(r"(^|_)(s|seconds|times?|hours|mem_mb)$|^(versions|process|date)$")
# Lists that peft writes out of a set, in any order.
UNORDERED = ("target_modules",)
# What no two runs share in reports: columns of a table by their header, and figures in a sentence.
TIMED_COLUMN, TIMED = re.compile(r"\b(seconds|s|min|hours|MB)\b"), re.compile(r"[\d.,]+ (seconds|s|minutes|hours|h|MB)\b")
# Keys whose value a rename changes although the answer is the same.
HASHES = {
    "sha256": "of a .pt file, with the name of a temporary file in it; its tensors are compared",
    "prompts_hash": "of prompts.csv, which has a renamed column; the file is compared",
    "questions_hash": "of questions.jsonl, which has a renamed key",
    "delta_bytes": "the header of a delta has renamed keys; header and tensors are compared",
    "storage_bytes": "the same, in a table",
    "edit": "in a7's made_with: of a delta file, or of a record's settings",
    "shared": "of a study's settings and versions",
    "fingerprint": "the same",
}

# --------------------------------------------------------------------------------------------------------------- calls

# What several calls share: {name: text}, in which {name} stands for another one, {inputs} and {run} for the folders.
SHARED = {
    "quiet": "--workers 0 --device cpu",
    "to": "--result-dir {run}/results {quiet}",
    "images": "--tar-dir {run}/tars --image-dir {run}/pictures",
    # CLIP on a tiny world
    "world": "{inputs}/tiny/world",
    "a0": "{images} --laion-dir {world}/laion/laion400m --known-names {world}/names.txt {to}",
    "names": "--celeb-name Alien Bento_Box --tar-dir {run}/tars --train-data {world}/laion/laion400m/00000.tar",
    "open": "--model local-dir:{inputs}/tiny/clip/open_clip",
    "hugging": "--clip-model-id {inputs}/tiny/clip/hugging_face",
    "judged": "--val-data {world}/celeba --imagenet-val {world}/ImageNet/val",
    "a1": "{names} {open} {to}",
    "a2": "{names} {open} {to} {judged} --evaluations 4",
    "a3": "{names} {open} {to} {judged} --trace 8 --epochs 2 --forget-epochs 1 --lr 1e-3",
    "a7": "{a1} {judged} --relearn-lr 1e-3 --relearn-steps 1 3 --relearn-pictures 2 0 --aliases {inputs}/tiny/aliases.csv",
    # Stable Diffusion, tiny
    "random": "--clip-model-id {inputs}/tiny/random/hugging_face",
    "pipe": "--pipeline {inputs}/tiny/sd/pipeline {random} --denoising-steps 2 --guidance 2 --generate-batch-size 8 {to}",
    "asked": "--prompts {run}/prompts.csv --classifiers {inputs}/tiny/sd/classifiers",
    "sd_data": "--tar-dir {run}/tars --train-data {inputs}/tiny/sd/train.tar --batch-size 4",
    "b1": "{random} {sd_data} {to}",
    "b2": "{pipe} {asked} {sd_data} --evaluations 2 --fronts 1 --wanted 0.95 --keep 0.1",
    # LLaVA, tiny
    "llava": "--vlm {inputs}/tiny/vlm/llava {random} --questions {run}/questions.jsonl {to}",
    "c1": "{llava} --celeb-name Frog --evaluations 2 --tar-dir {inputs}/tiny/vlm --train-data {inputs}/tiny/vlm/train.tar",
    # the committed models on the demo's world
    "demo": "{inputs}/mini/world",
    "mini_a0": "{images} --laion-dir {demo}/laion/laion400m --known-names {demo}/names.txt --max-count 64 {to}",
    "mini_data": "--tar-dir {run}/tars --train-data {inputs}/mini/train.tar",
    "mini_a1": "--celeb-name Elephant Frog {mini_data} --model local-dir:{inputs}/mini/models/mini-clip {to}",
    "mini_a2": "{mini_a1} --val-data {demo}/celeba --imagenet-val {demo}/ImageNet/val --imagenet-share 0.2",
    "mini_clip": "--clip-model-id {inputs}/mini/models/mini-clip-hf",
    "mini_pipe": "--pipeline {inputs}/mini/models/mini-sd {mini_clip} --denoising-steps 4 --guidance 1 {to}",
    "mini_asked": "--prompts {run}/prompts.csv --classifiers {inputs}/mini/models/uncanvas",
    "mini_canvas": "--canvas {demo}/UnlearnCanvas/data --style Noto Twemoji --object bell rocket skull",
    "mini_b2": "{mini_pipe} {mini_asked} {mini_data} --evaluations 3 --fronts 1",
    "mini_llava": "--vlm {inputs}/mini/models/mini-llava {mini_clip} {mini_asks} --max-new-tokens 8 {to}",
    "mini_asks": "--questions {run}/questions.jsonl",
}
# [part group], then its calls in order: a stage and its arguments, or `copy FROM TO`.
CALLS = """
[tiny curation]
a0_create_tar               --name Alien Bento_Box {a0}
a0_create_tar               --name Ghost --csv {inputs}/tiny/own/pairs.csv --near-duplicates 3 {images} {to}
a0_create_tar               --name Own --image-folder {inputs}/tiny/own {images} {to}
a0_create_tar_ucanvas       --canvas {inputs}/tiny/sd/canvas --tar-dir {run}/canvas {to}
a0_create_prompts_uncanvas  --canvas {inputs}/tiny/sd/canvas --out {run}/prompts.csv {to}
a0_create_prompts_uncanvas  --names iron_man bell --shared-seeds --select-seeds 1000 1001 --out {run}/names.csv {to}
a0_eval_celeba              --data-root {world}/celeba {open} {to}
a0_eval_imagenet            --imagenet-val {world}/ImageNet/val {hugging} --imagenet-share 0.5 {to}
copy                        {inputs}/tiny/celeba {run}/celeba
a0_prepare_celeba           --data-root {run}/celeba --count 2 --name gil_ho {to}
a0_prepare_imagenet         --tar {inputs}/tiny/val.tar --devkit {inputs}/tiny/devkit.tar.gz --any-archive
                            --imagenet-val {run}/val {to}
[tiny clip]
copy                        {inputs}/tiny/README.md {run}/README.md
a0_create_tar               --name Alien Bento_Box {a0}
a1_compute_grad             {a1}
a1_compute_grad             {a1} --unlearn-method calc_grad_o
a1_compute_grad             {a1} --unlearn-method calc_importance
a1_compute_grad             {a1} --unlearn-method calc_importance_o
a1_compute_grad             {a1} --unlearn-method calc_grad_w
a1_compute_grad             {a1} --unlearn-method calc_grad_ws
copy                        {run}/results/grads {run}/o/grads
copy                        {run}/results/grads {run}/w/grads
copy                        {run}/results/grads {run}/paper/grads
copy                        {run}/results/grads {run}/study/grads
a2_unlearn_slug             {a2} --trace 8
a2_unlearn_slug             {a2} --unlearn-method slug_o --celeb-name Alien --result-dir {run}/o
a2_unlearn_slug             {a2} --unlearn-method slug_w --fronts 2 --celeb-name Alien --result-dir {run}/w
a2_unlearn_slug             {a2} --unlearn-method slug_ws --celeb-name Bento_Box --layer visual.proj --result-dir {run}/w
a2_unlearn_slug             {a2} --search-rule paper --choose deepest --celeb-name Alien --result-dir {run}/paper
a2_unlearn_slug             {a2} --plain --layer visual.proj --step 5 --celeb-name Bento_Box --result-dir {run}/paper
a2_unlearn_slug             apply --delta {run}/results/clip/open_clip-Alien.delta.safetensors
                            {run}/results/clip/open_clip-Bento_Box.delta.safetensors
                            --model-dir {inputs}/tiny/clip/open_clip --out {run}/edited
a2_unlearn_slug             list --model-dir {run}/edited
a2_unlearn_slug             revert --delta open_clip-Alien.delta.safetensors --model-dir {run}/edited --out {run}/back
a3_unlearn_compare          {a3} --unlearn-method raw ft ga gaft salun ssd --epochs 1
a3_unlearn_compare          {a3} --unlearn-method ga_o gaft_o salun_o ssd_o --celeb-name Bento_Box --result-dir {run}/o
a4_report                   {to}
a4_report                   {to} --out {run}/published --readme {run}/README.md
a3_unlearn_compare          {a3} --unlearn-method ga --settings-from {run}/results/clip/report/table.csv --result-dir {run}/o
a5_unlearn_multi            {a1} {judged} --joint --out {run}/multi --part mixture --readme {run}/README.md
a6_study                    {a1} {judged} --laion-dir {world}/laion/laion400m --result-dir {run}/study --variant standard
                            front_together importance deepest drawings_1 retain_10 rounds_3
a4_report                   --study {run}/study --out {run}/published/study --readme {run}/README.md
a7_lasting                  {a7} --unlearn-method slug ft salun --readme {run}/README.md
[tiny clip-hf]
a0_create_tar               --name Alien Bento_Box {a0}
a1_compute_grad             {names} {hugging} {to}
a2_unlearn_slug             {names} {hugging} {to} {judged} --evaluations 3 --celeb-name Alien
a2_unlearn_slug             apply --delta {run}/results/clip/hugging_face-Alien.delta.safetensors
                            --model-dir {inputs}/tiny/clip/hugging_face --out {run}/edited
a2_unlearn_slug             adapter --delta {run}/results/clip/hugging_face-Alien.delta.safetensors --residual 1
                            --out {run}/adapter
[tiny sd]
copy                        {inputs}/tiny/README.md {run}/README.md
a0_create_prompts_uncanvas  --canvas {inputs}/tiny/sd/canvas --out {run}/prompts.csv --report-seeds 0 --select-seeds 1 2
                            {to}
a0_create_tar_ucanvas       --canvas {inputs}/tiny/sd/canvas --tar-dir {run}/tars {to}
b1_compute_grad             --celeb-name Noto palm_tree {b1}
b1_compute_grad             --celeb-name Noto palm_tree {b1} --unlearn-method calc_grad_w
b1_compute_grad             --celeb-name Noto palm_tree {b1} --unlearn-method calc_grad_ws
b2_unlearn_sd               {b2} --style Noto --object palm_tree
b2_unlearn_sd               {b2} --style Noto --method slug_w --rounds 2
b2_unlearn_sd               {b2} --style Noto --method slug_ws --evaluations 1
b2_unlearn_sd               {b2} --style Noto --method uce
b2_unlearn_sd               {b2} --object palm_tree --method esd
b3_eval_uncanvas            {pipe} {asked} --reference {inputs}/tiny/sd/canvas --out {run}/out --readme {run}/README.md
b4_optimised_tokens         {pipe} {asked} --style Noto --training-steps 5 --readme {run}/README.md
b5_unlearn_multi            {pipe} {asked} --style Noto --object palm_tree --readme {run}/README.md
a2_unlearn_slug             apply --delta {run}/results/sd/pipeline-slug-style-Noto.delta.safetensors
                            --model-dir {inputs}/tiny/sd/pipeline --out {run}/edited
[tiny sd-names]
a0_create_prompts_uncanvas  --names bell key palm_tree --report-seeds 0 --select-seeds 1 --out {run}/prompts.csv {to}
b0_generate_forget_set      {pipe} {images} --count 6 --object bell
b1_compute_grad             --celeb-name bell {b1}
b2_unlearn_sd               {b2} --object bell --select clip --evaluations 1
b3_eval_uncanvas            {pipe} {asked} --judge clip
[tiny vlm]
copy                        {inputs}/tiny/README.md {run}/README.md
copy                        {inputs}/tiny/vlm/questions.jsonl {run}/questions.jsonl
c1_unlearn_vlm              {c1} --batch-size 4
c1_unlearn_vlm              {c1} --batch-size 4 --unlearn-method calc_grad_w --log-all --result-dir {run}/w
c2_eval_vlm                 {llava} --utility {inputs}/tiny/vlm/MME --factors 0.5 8 --out {run}/out --readme {run}/README.md
a2_unlearn_slug             apply --delta {run}/results/vlm/llava-Frog.delta.safetensors
                            --model-dir {inputs}/tiny/vlm/llava --out {run}/edited
[mini mini-clip]
a0_create_tar               --name Elephant Frog {mini_a0}
a1_compute_grad             {mini_a1}
a1_compute_grad             {mini_a1} --unlearn-method calc_importance
a1_compute_grad             {mini_a1} --unlearn-method calc_grad_ws
copy                        {run}/results/grads {run}/ws/grads
a2_unlearn_slug             {mini_a2} --evaluations 4
a2_unlearn_slug             {mini_a2} --evaluations 3 --unlearn-method slug_ws --celeb-name Frog --result-dir {run}/ws
a3_unlearn_compare          {mini_a2} --celeb-name Frog --lr 1e-4 --epochs 1 --forget-epochs 1
a4_report                   {to}
a5_unlearn_multi            {mini_a2} --joint --sigmas 2
[mini mini-sd]
a0_create_prompts_uncanvas  {mini_canvas} --report-seeds 0 --select-seeds 1000 1001 --out {run}/prompts.csv {to}
a0_create_tar_ucanvas       {mini_canvas} --tar-dir {run}/tars {to}
b1_compute_grad             --celeb-name Noto bell {mini_clip} {mini_data} {to}
b1_compute_grad             --celeb-name Noto bell {mini_clip} {mini_data} {to} --unlearn-method calc_grad_w
b2_unlearn_sd               {mini_b2} --style Noto
b2_unlearn_sd               {mini_b2} --style Noto --object bell --method slug_w
b2_unlearn_sd               {mini_b2} --style Noto --method uce
b3_eval_uncanvas            {mini_pipe} {mini_asked} --no-fid
[mini mini-llava]
copy                        {inputs}/mini/vlm/questions.jsonl {run}/questions.jsonl
a0_create_tar               --name Frog {mini_a0}
c1_unlearn_vlm              --celeb-name Frog {mini_data} {mini_llava} --evaluations 2 --fronts 1
c2_eval_vlm                 {mini_llava}
"""

# ------------------------------------------------------------------------------------------------------------- prepare

PREPARE = """
import itertools, json, shutil, sys, tarfile
from pathlib import Path
import tiny, torch
from diffusers import StableDiffusionPipeline
from demo import build_questions, build_standin, build_world, convert_sd, convert_vlm, emoji, train_vlm
from test_real_data import IDS, TRUTH, write_celeba

out, root = Path(sys.argv[1]), Path.cwd()
t, mini, models = out / "tiny", out / "mini", out / "mini/models"
sd, vlm, clip = t / "sd", t / "vlm", t / "random/hugging_face"
build_world.build(t / "world", limit=tiny.LIMIT, counts=tiny.COUNTS)
tiny.write_taught_clip(t / "clip")
tiny.write_random_clip(t / "random")
(t / "aliases.csv").write_text("name,alias\\nalien,extraterrestrial\\nghost,spectre\\n")
blocks = "results pictures comparison multi study lasting uncanvas tokens back uncanvas-multi vlm".split()
(t / "README.md").write_text("".join(f"<!-- {b} -->\\n<!-- /{b} -->\\n" for b in blocks))
(t / "own/Own").mkdir(parents=True)
for i in range(6):
    (t / f"own/Own/{i}.jpg").write_bytes(tiny.jpeg(i))
(t / "own/pairs.csv").write_text("image,caption\\n" + "".join(f"Own/{i}.jpg,the ghost {i}\\n" for i in range(6)))
write_celeba(t / "celeba")
build_standin.write_devkit(t / "devkit.tar.gz", IDS, TRUTH)
tiny.write_tar(t / "val.tar", {f"ILSVRC2012_val_{n:08d}.JPEG": tiny.jpeg(n) for n in (4, 1, 6, 2, 5, 3)})

tiny.write_pipeline(sd / "pipeline", clip)
styles, things = ["Noto", "Blob_Old"], ["bell", "key", "palm_tree"]
said = [f"A {thing} image in {style} style." for style in styles for thing in things]
pipe = StableDiffusionPipeline.from_pretrained(sd / "pipeline")
made = pipe(said, num_inference_steps=3, guidance_scale=3.0, output_type="pt", generator=torch.Generator().manual_seed(0))
tiny.write_classifiers(sd / "classifiers", {"style": styles, "object": things}, (made.images.cpu().float() * 255).round())
for i, (style, thing) in enumerate(itertools.product(styles, things)):
    (sd / "canvas" / style / thing).mkdir(parents=True)
    for n in (1, 2, 3):
        (sd / "canvas" / style / thing / f"{n}.jpg").write_bytes(tiny.jpeg(10 * i + n, size=16))
tiny.write_pairs(sd / "train.tar", ["a dog", "a cat", "Noto", "tree", "a key", "a house", "a car", "a boat"])

processor = train_vlm.make_processor(clip, emoji.concepts())
torch.manual_seed(0)
train_vlm.make_model(clip, processor.tokenizer).save_pretrained(vlm / "llava")
processor.save_pretrained(vlm / "llava")
tiny.write_pairs(vlm / "Frog.tar", ["a frog", "the frog", "frog!", "my frog"])
tiny.write_pairs(vlm / "train.tar", ["a dog", "a cat", "owl", "tree", "a key", "a house", "a car", "a boat"])
(vlm / "pictures").mkdir()
(vlm / "MME/color").mkdir(parents=True)
(vlm / "MME/color/1.jpg").write_bytes(tiny.jpeg(0))
(vlm / "MME/color/1.txt").write_text("Is it red?\\tYes\\nIs it blue?\\tNo\\n")
lines = []
for i, name in enumerate(["Frog", "Owl", "apple", "Red Panda"] * 4):
    (vlm / f"pictures/{i}.png").write_bytes(tiny.jpeg(i))
    common = {"image": str(vlm / f"pictures/{i}.png"), "half": "select" if i % 8 < 4 else "report"}
    who = {"text": "what is this?", "answer": name.lower(), "task": "who", "name": name, "group": f"{name}/{i}"}
    lines += [common | who, common | {"text": "which colour is behind it?", "answer": "red", "task": "colour"}]
(vlm / "questions.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))

build_world.main(["--out", str(mini / "world")])
for part in ("mini-clip", "uncanvas"):
    shutil.copytree(root / "data/models" / part, models / part)
convert_sd.main(["--out", str(models)])
convert_vlm.main(["--out", str(models)])
build_questions.main(["--out", str(mini / "vlm"), "--name", "Frog"])
rows = [json.loads(line) for line in (mini / "vlm/questions.jsonl").read_text().splitlines()]
rows = [{k: v for k, v in r.items() if k != "asks"} for r in rows if not r["task"].startswith("probe_")]
rows = [r | {"image": str(mini / "vlm" / r["image"])} for r in rows[::8] + [r for r in rows if r["name"] == "Frog"][::2]]
(mini / "vlm/questions.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
with tarfile.open(mini / "world/laion/laion400m/00000.tar") as whole, tarfile.open(mini / "train.tar", "w") as part:
    for member in whole.getmembers()[:2048]:
        part.addfile(member, whole.extractfile(member))
"""


def environment(checkout: Path, *more: str) -> dict[str, str]:
    """The environment of a process that imports a checkout's code, and that of `more` of its folders."""
    return os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(str(checkout / f) for f in ("src", *more))}


def prepare(args: argparse.Namespace) -> int:
    """Make the inputs of all groups."""
    args.inputs.mkdir(parents=True)
    command = [sys.executable, "-c", PREPARE, str(args.inputs)]
    return subprocess.run(command, cwd=args.checkout, env=environment(args.checkout, "tests")).returncode


# -------------------------------------------------------------------------------------------------------------- record


def calls(group: str, folders: dict[str, str]) -> list[list[str]]:
    """[[stage, argument, ...]] of a group of CALLS, with the names in braces filled in."""
    text = re.sub(r"\n +", " ", CALLS).split(f" {group}]\n")[1].split("\n[")[0]
    while "{" in text:
        text = text.format_map(SHARED | folders)
    return [shlex.split(line) for line in text.strip().splitlines()]


def copy(source: str, target: str, new_names: bool) -> None:
    """Copy a folder, a file, or a file of questions, whose keys get their new names where `new_names`."""
    if Path(source).is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif new_names and source.endswith(".jsonl"):
        Path(target).write_text("".join(json.dumps(row) + "\n" for row in plain(read(Path(source)))))
    else:
        shutil.copyfile(source, target)


def run_stage(checkout: Path, stage: str, arguments: list[str], log: Path) -> str:
    """Run a stage and keep what it prints; returns what went wrong, in a line, or nothing."""
    script = checkout / "src" / FOLDERS[stage[0]] / f"{stage}.py"
    if not script.is_file():
        return f"there is no {script.relative_to(checkout)}"
    text = script.read_text(encoding="utf-8")
    arguments = [FLAGS[a] if a in FLAGS and f'"{FLAGS[a]}"' in text else a for a in arguments]
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, env=environment(checkout), capture_output=True, text=True, cwd=log.parent)
    log.write_text(f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}", encoding="utf-8")
    last = done.stderr.strip().splitlines()[-1:] or ["nothing was printed"]
    return f"exit code {done.returncode}: {last[0]}" if done.returncode else ""


def record(args: argparse.Namespace) -> int:
    """Run all groups that are asked for; returns 1 if a call failed, which the next ones do not wait for."""
    failed, groups = 0, re.findall(r"^\[(\w+) (\S+)\]$", CALLS, flags=re.MULTILINE)
    if strange := set(args.only) - {group for _, group in groups}:
        raise SystemExit(f"error: no group is called {', '.join(strange)}; there are {', '.join(g for _, g in groups)}")
    for part, group in groups:
        if args.part not in ("all", part) or (args.only and group not in args.only):
            continue
        run = args.out / group
        shutil.rmtree(run, ignore_errors=True)
        (run / "output").mkdir(parents=True)
        (run / WHERE).write_text(str(run), encoding="utf-8")
        todo = calls(group, {"inputs": str(args.inputs), "run": str(run)})
        began = time.perf_counter()
        for number, (stage, *arguments) in enumerate(todo, 1):
            if stage == "copy":
                copy(*arguments, args.new_names)
                continue
            started = time.perf_counter()
            wrong = run_stage(args.checkout, stage, arguments, run / "output" / f"{number:02d}-{stage}.txt")
            failed += bool(wrong)
            said = f"ERROR: {wrong}" if wrong else f"{time.perf_counter() - started:.0f} s"
            print(f"{group} {number:02d} {stage}: {said}", flush=True)
        print(f"{group}: {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{failed} calls failed" if failed else "all calls ended well")
    return int(failed > 0)


# ------------------------------------------------------------------------------------------------------------- compare


def lines_of(text: str) -> list[str]:
    """The lines of a text that have to be the same: of a step log the published ones, without their times."""
    lines = text.splitlines()
    if steps := [line for line in lines if line.startswith("iter:")]:
        return [line.split(", time:")[0] for line in steps]
    found, left_out = [], set()
    for line in lines:
        between = " & " if " & " in line and not line.startswith("|") else " | "
        cells = line.split(between)
        if len(cells) == 1:
            left_out = left_out if line.startswith(("|", "\\")) else set()  # a rule of a table, or its end
        elif not left_out:  # a header
            left_out = {i for i, cell in enumerate(cells) if TIMED_COLUMN.search(cell)} | {-1}
        line = between.join(cell for i, cell in enumerate(cells) if i not in left_out)
        for pattern, new in (*WORDS, (TIMED, "some time")):
            line = re.sub(pattern, new, line)
        found.append(line)
    return found


def read(path: Path, numbers: bool = False) -> Any:
    """The content of a result file as plain objects and tensors; of a text only the `numbers` in it."""
    kind = path.suffix
    if kind == ".pt":
        return torch.load(path, weights_only=True, map_location="cpu")
    if kind == ".safetensors":
        with safe_open(path, "pt") as f:
            return {"metadata": f.metadata() or {}, "tensors": {n: f.get_tensor(n) for n in f.keys()}}  # noqa: SIM118
    if kind == ".parquet":
        return pq.read_table(path).to_pylist()
    if kind == ".tar":
        with tarfile.open(path) as tar:
            return {m.name: hashlib.sha256(tar.extractfile(m).read()).hexdigest() for m in tar if m.isfile()}
    if kind in (".png", ".pdf") and "pictures" not in path.parts:
        return "a plot"
    if kind in (".json", ".jsonl", ".csv", ".md", ".txt", ".log", ".tex"):
        text = path.read_text(encoding="utf-8")
        if kind == ".json":
            return json.loads(text)
        if kind == ".jsonl":
            return [json.loads(line) for line in text.splitlines()]
        if kind == ".csv":
            return list(csv.DictReader(text.splitlines()))
        return re.findall(r"[-+]?\d+(?:\.\d+)?", " ".join(lines_of(text))) if numbers else lines_of(text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain(value: Any, folder: str = "", key: str = "") -> Any:
    """A value under its new names, without what no two runs share; JSON within strings is read, `folder` is called RUN."""
    if isinstance(value, dict):
        named = {VALUES.get(key, {}).get(k, KEYS.get(k, k)): v for k, v in value.items()}
        return {k: plain(v, folder, k) for k, v in named.items() if k not in HASHES and not VOLATILE.search(k)}
    if isinstance(value, (list, tuple)):
        found = [plain(v, folder, "" if key in LISTS else key) for v in value]
        return sorted(found) if key in UNORDERED else found
    if key in LISTS:
        return [plain(value, folder)]
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if not isinstance(value, str):
        return value
    if value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return plain(json.loads(value), folder, key)
    value = value.replace(folder, "RUN") if folder else value
    return VALUES.get(key, {}).get(value, value)


def difference(a: Any, b: Any, where: str = "") -> str:
    """The first difference of two values in words; nothing where there is none."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{where}: {a.dtype} {tuple(a.shape)} / {b.dtype} {tuple(b.shape)}"
        if torch.equal(*(t.contiguous().flatten().view(torch.uint8) for t in (a, b))):
            return ""
        return f"{where}: tensors differ by at most {(a.double() - b.double()).abs().max():.3g}"
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            only = [f"{k} only in {side}" for side, x, y in (("A", a, b), ("B", b, a)) for k in x if k not in y]
            return f"{where}: {', '.join(only[:4])}"
        return next(filter(None, (difference(a[k], b[k], f"{where}/{k}") for k in a)), "")
    if isinstance(a, list) and isinstance(b, list):
        parts = (difference(x, y, f"{where}/{i}") for i, (x, y) in enumerate(zip(a, b, strict=False)))
        return next(filter(None, parts), "" if len(a) == len(b) else f"{where}: {len(a)} / {len(b)} entries")
    return "" if a == b else f"{where}: {str(a)[:150]} / {str(b)[:150]}"


def tree(root: Path) -> dict[str, list[Path]]:
    """{path in a result tree, under its new name: files}: several where only a hash in their names tells them apart."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if not SKIPPED.search(name):
            for pattern, new in FILES:
                name = re.sub(pattern, new, name)
            found.setdefault(name, []).append(path)
    return found


def compare(args: argparse.Namespace) -> int:
    """Print a line a file that differs; returns 1 if there is one. Groups that only one side recorded are left out."""
    a, b = tree(args.a), tree(args.b)
    groups = [{name.split("/")[0] for name in side} for side in (a, b)]
    groups = [side & set(args.only or side) for side in groups]
    names = sorted(n for n in a.keys() | b.keys() if n.split("/")[0] in groups[0] & groups[1])
    wrong = 0
    for name in names:
        if name not in a or name not in b:
            said = f"only in {'A' if name in a else 'B'}"
        else:
            where = (root / name.split("/")[0] / WHERE for root in (args.a, args.b))
            folders = [path.read_text(encoding="utf-8") for path in where]
            one, two = (
                [plain(read(p, args.numbers), f) for p in side[name]] for side, f in zip((a, b), folders, strict=True)
            )
            said = difference(*((sorted(x, key=str) if len(x) > 1 else x[0]) for x in (one, two)))
        if said:
            wrong += 1
            print(f"{name}: {said}")
    alone = sorted(groups[0] ^ groups[1])
    print(f"{len(names)} files compared, {wrong} differ" + (f"; only one side has {', '.join(alone)}" if alone else ""))
    return int(wrong > 0 or not names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for do, folders in ((prepare, "checkout inputs"), (record, "checkout inputs out"), (compare, "a b")):
        command = commands.add_parser(do.__name__, help=do.__doc__)
        command.set_defaults(do=do)
        for folder in folders.split():
            command.add_argument(folder, type=lambda path: Path(path).resolve())
        if do is not prepare:
            command.add_argument("--only", nargs="+", default=[], metavar="GROUP")
        if do is compare:
            command.add_argument("--numbers", action="store_true", help="of reports and logs compare the numbers alone")
        if do is record:
            command.add_argument("--part", choices=("tiny", "mini", "all"), default="all")
            command.add_argument("--new-names", action="store_true", help="questions have their new keys")
    args = parser.parse_args()
    return args.do(args)


if __name__ == "__main__":
    sys.exit(main())
