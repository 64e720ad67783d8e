"""Train mini-CLIP on EmojiCanvas and write it as an open_clip folder (fp16 safetensors, config, tokenizer).

Example: python src/demo/train_clip.py --minutes 85            (2 cores; resumes from its checkpoint when run again)
         python src/demo/train_clip.py --steps 8604            (a fixed number of steps, the same on any machine)
         python src/demo/train_clip.py --steps 8604 --without Lion "Old Woman" --out data/models/gold   (a gold model, which
                                                               never sees these concepts, nor a caption that names them)

Command, steps and time of the committed weights: data/models/mini-clip/training.json.
"""

import argparse
import json
import math
import os
import shlex
import time
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP, get_tokenizer
from open_clip.transformer import text_global_pool
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from demo import emoji, tokenizer
from slug import cli, progress
from slug.data.names import plain_name
from slug.errors import SlugError

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
BATCH = 192
SECOND = 24  # second pictures in a batch: a concept again in another style; both captions name the style
# (fraction of training, weight) of the loss from pictures to style prompts, whose positives are all pictures of a house. It
# grows: concepts are learned first, because only fine details tell one house's tiger from another's.
STYLE_WEIGHT = ((0.1, 0.5), (0.4, 1.5))
RATE, DECAY, BETAS, WARMUP = 1e-3, 0.2, (0.9, 0.98), 100  # AdamW: embeddings, projections, biases and norms
BLOCK_RATE, BLOCK_DECAY = 3e-3, 0.1  # Muon, for the matrices of the blocks: far fewer steps to the same loss than AdamW
WIDER = emoji.Ranges(turn=17, size=(0.75, 1.20), aspect=0.12, shift=0.12, tint=0.20, mix=0.08)


def model_config(vocab_size):
    """The open_clip config of mini-CLIP."""
    return {
        "embed_dim": 192,
        "vision_cfg": {"image_size": emoji.SIZE, "layers": 6, "width": 192, "head_width": 32, "patch_size": 16},
        "text_cfg": {
            "context_length": tokenizer.CONTEXT,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "mini-clip",  # for a local-dir: model, open_clip reads the tokenizer beside the config
            "width": 192,
            "heads": 6,
            "layers": 3,
        },
    }


def encode_text(model, tokens):
    """model.encode_text on texts cut to the longest of the batch: nothing after the end token reaches it."""
    tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]
    n = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:n]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
    return F.normalize(text_global_pool(x, tokens) @ model.text_projection, dim=-1)


def distort(x, g):
    """Augment pictures (N, 3, S, S): 5% become grey, in 30% a box is erased."""
    n, _, size, _ = x.shape
    grey = x.mean(1, keepdim=True)
    x = torch.where((torch.rand(n, generator=g) < 0.05).view(n, 1, 1, 1), grey.expand_as(x), x)
    for i in torch.nonzero(torch.rand(n, generator=g) < 0.3).flatten().tolist():
        h, w = torch.randint(size // 8, size // 3, (2,), generator=g).tolist()
        top, left = (
            torch.randint(0, size - h, (1,), generator=g).item(),
            torch.randint(0, size - w, (1,), generator=g).item(),
        )
        x[i, :, top : top + h, left : left + w] = torch.rand(3, 1, 1, generator=g)
    return x


class Batches:
    """Training batches; batch k depends on (seed, k) only, so that a resumed run continues exactly."""

    def __init__(self, seed, tokenize, without=()):
        """`without` are names of concepts that no picture shows and no caption names."""
        self.seed = seed
        self.world = emoji.concepts()
        absent = {plain_name(name).casefold() for name in without}
        unknown = absent - {c.name.casefold() for c in self.world}
        if unknown:
            raise SlugError(f"no concept of EmojiCanvas is called {', '.join(sorted(unknown))}; see data/emoji/concepts.csv")
        self.shown = [i for i, c in enumerate(self.world) if c.name.casefold() not in absent]
        self.pictures = emoji.pictures(self.world)
        self.icons = emoji.icons(self.world, progress=progress.bar)
        self.by_concept = [[] for _ in self.world]  # for each concept its pictures that training sees
        for i, p in enumerate(self.pictures):
            if p.seen:
                self.by_concept[p.concept].append(i)
        self.tokenize = tokenize
        self.names = [self.world[i].name for i in self.shown]
        self.style_index = {s: i for i, s in enumerate(emoji.STYLES)}

    def draw(self, rng, concept, not_style=None):
        """A random drawing of a concept that training sees, in a random one of its styles."""
        options = [i for i in self.by_concept[concept] if self.pictures[i].set != not_style]
        drawings = sorted({self.pictures[i].drawing for i in options})
        chosen = drawings[rng.integers(len(drawings))]
        options = [i for i in options if self.pictures[i].drawing == chosen]
        return options[rng.integers(len(options))]

    def __call__(self, k):
        """Pictures (B, 3, S, S) normalised, tokens (B, L), style indices (B,)."""
        rng = np.random.default_rng([self.seed, k])
        g = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = rng.permutation(self.shown)[: BATCH - SECOND]
        chosen = [*chosen, *chosen[:SECOND]]
        rows, texts = [], []
        for j, c in enumerate(chosen):
            i = self.draw(rng, c, self.pictures[rows[j - BATCH + SECOND]].set if j >= BATCH - SECOND else None)
            rows.append(i)
            twin = j < SECOND or j >= BATCH - SECOND
            style = emoji.STYLES[self.pictures[i].set] if twin or rng.random() < 0.3 else None
            texts.append(emoji.caption(rng, self.world[c], style, () if twin else self.names))
        x = distort(emoji.render(self.icons[rows], g, WIDER), g)
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        styles = torch.tensor([self.style_index[self.pictures[i].set] for i in rows])
        return x, self.tokenize(texts), styles


@torch.no_grad()
def left_out_accuracy(model, batches, kind="identity"):
    """Zero-shot top-1 on one rendering of each left-out picture; for the progress line only, no choice depends on it."""
    world = batches.world
    classes = [i for i, c in enumerate(world) if c.kind == kind and c.block <= 0]
    rows = [i for i, p in enumerate(batches.pictures) if not p.seen and p.concept in set(classes)]
    x = emoji.render(batches.icons[rows], torch.Generator().manual_seed(1)) * 2 - 1
    model.eval()
    text = encode_text(model, batches.tokenize([f"{world[c].name}." for c in classes]))
    guess = (model.encode_image(x, normalize=True) @ text.T).argmax(1)
    model.train()
    return (guess == torch.tensor([classes.index(batches.pictures[i].concept) for i in rows])).float().mean().item()


def write(path, data):
    """Write bytes or tensors through a temporary file."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data) if isinstance(data, bytes) else save_file(data, temporary)
    os.replace(temporary, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--minutes",
        type=cli.within(cli.Positive),
        default=85,
        help="length of the training and of its learning-rate schedule",
    )
    parser.add_argument("--steps", type=cli.within(cli.Count), help="train this many steps instead")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="concepts that training never sees")
    parser.add_argument("--save-seconds", type=cli.within(cli.Positive), default=120, help="seconds between two checkpoints")
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "models" / "mini-clip")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "results" / "train" / "mini-clip.pt")
    args = parser.parse_args()

    vocab_size = tokenizer.build(args.out)
    config = model_config(vocab_size)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    write(args.out / "open_clip_config.json", text.encode())
    batches = Batches(args.seed, get_tokenizer(f"local-dir:{args.out}"), args.without)
    torch.manual_seed(args.seed)
    training = {**config, "text_cfg": {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}}
    model = CLIP(**training).to(args.device).train()
    matrices, decayed, rest = [], [], []
    for name, p in model.named_parameters():
        (rest if p.ndim <= 1 else matrices if "resblocks" in name else decayed).append(p)
    adamw = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0}], lr=RATE, betas=BETAS, fused=True
    )
    # Three Newton-Schulz steps instead of the usual five: the loss falls as fast, and a step costs less.
    muon = torch.optim.Muon(matrices, lr=BLOCK_RATE, weight_decay=BLOCK_DECAY, ns_steps=3, adjust_lr_fn="match_rms_adamw")
    optimizers = {"adamw": (adamw, RATE), "muon": (muon, BLOCK_RATE)}
    style_tokens = batches.tokenize([emoji.STYLE_PROMPT.format(style=s) for s in emoji.STYLES.values()]).to(args.device)
    step, spent = 0, 0.0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, weights_only=True, map_location=args.device)
        model.load_state_dict(state["model"])
        for name, (optimizer, _) in optimizers.items():
            optimizer.load_state_dict(state[name])
        step, spent = state["step"], state["spent"]
        print(f"resumed {args.checkpoint} at step {step}, {spent / 60:.1f} minutes")
    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    started, saved = time.perf_counter() - spent, spent
    total = args.steps or args.minutes
    bar = progress.bar(total=total, initial=step if args.steps else spent / 60, unit="step" if args.steps else "min")
    while True:
        spent = time.perf_counter() - started
        done = step / args.steps if args.steps else spent / 60 / args.minutes
        if done >= 1:
            break
        part = min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
        for optimizer, rate in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * part
        images, tokens, styles = (t.to(args.device) for t in batches(step))
        # With 17 tokens, the backward pass of fused attention takes half of a step on CPUs; plain attention is faster.
        with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image = model.encode_image(images, normalize=True)
            texts = encode_text(model, tokens)
            style_texts = encode_text(model, style_tokens)
        image, texts, style_texts = image.float(), texts.float(), style_texts.float()
        scale = model.logit_scale.exp()
        logits = scale * image @ texts.T
        target = torch.arange(len(logits), device=args.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        style_loss = F.cross_entropy(scale * image @ style_texts.T, styles)
        loss = loss + float(np.interp(done, *zip(*STYLE_WEIGHT, strict=True))) * style_loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers.values():
            optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        step += 1
        if step % 20 == 0:
            bar.n = step if args.steps else round(spent / 60, 2)
            bar.set_postfix(step=step, loss=f"{loss.item():.3f}", style=f"{style_loss.item():.3f}")
        if step % 500 == 0:
            seen = {k: f"{left_out_accuracy(model, batches, k):.3f}" for k in ("identity", "object")}
            progress.write(f"step {step}, {spent / 60:.1f} min, loss {loss.item():.3f}, left-out drawings {seen}")
        if spent - saved > args.save_seconds:
            saved = spent
            state = {"model": model.state_dict(), "step": step, "spent": spent}
            state |= {name: optimizer.state_dict() for name, (optimizer, _) in optimizers.items()}
            temporary = args.checkpoint.with_suffix(".part")
            torch.save(state, temporary)
            os.replace(temporary, args.checkpoint)
    bar.close()
    state = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    write(args.out / "open_clip_model.safetensors", state)
    length = f"--steps {args.steps}" if args.steps else f"--minutes {args.minutes:g}"
    without = "".join(f" {shlex.quote(name)}" for name in args.without)
    record = {
        "command": f"python src/demo/train_clip.py {length} --seed {args.seed}{' --without' * bool(without)}{without}",
        "without": sorted(plain_name(name) for name in args.without),
        "steps": step,
        "minutes": round(spent / 60, 1),
        "device": args.device,
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "parameters": sum(p.numel() for p in model.parameters()),
        "source": "drawings of data/emoji/ (see NOTICE), except those marked left_out",
        "licence": "CC-BY-SA-4.0, as the share-alike icon sets in it ask",
        "torch": torch.__version__,
    }
    write(args.out / "training.json", json.dumps(record, indent=1).encode())
    print(f"{step} steps in {spent / 60:.1f} minutes -> {args.out}")


if __name__ == "__main__":
    cli.exit_with(main)
