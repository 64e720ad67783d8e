"""Train mini-LLaVA, a transformers LlavaForConditionalGeneration, on EmojiCanvas with mini-CLIP's frozen vision tower.

Example: python src/demo/train_vlm.py          (2 cores; resumes from its checkpoint when run again)

Trains the projector and the language model and writes them, in fp16, with the processor; src/demo/convert_vlm.py adds the
tower. Drawings that mini-CLIP's training never saw are not used here either.
"""

import argparse
import json
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from demo import canvases, convert_clip, emoji
from demo.training import Part
from slug import cli, files, progress

BATCH = 32
STEPS = 12_000
RATE = 1.5e-3
# Fraction of pictures that may show several icons; in the first part of training there are fewer, as one icon teaches more.
SEVERAL, ALONE, FIRST = 0.5, 0.2, 1 / 3
HIDDEN = 0.4  # fraction of patches hidden in pictures of one icon, so that no single patch identifies a concept
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}user: {% else %}assistant: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def make_processor(clip, concepts):
    """The LlavaProcessor: a word-level tokenizer of all questions and answers, and the CLIP's picture processing."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    vocabulary = {w: i for i, w in enumerate([*special, *canvases.words(concepts)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    return LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(clip, backend="pil"),
        tokenizer=fast,
        patch_size=CLIPVisionConfig.from_pretrained(clip).patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )


def image_tokens(config):
    """Tokens of a picture: the patches of a CLIPVisionConfig and the class token."""
    return (config.image_size // config.patch_size) ** 2 + 1


def make_model(clip, tokenizer):
    """The model with untrained language parts and the vision tower of the Hugging Face CLIP folder `clip`."""
    tower = CLIPVisionModel.from_pretrained(clip).float()
    tower.config._name_or_path = ""  # else the folder's path on this machine would be written
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        image_seq_length=image_tokens(tower.config),
    )
    model = LlavaForConditionalGeneration(config).float()
    model.model.vision_tower.load_state_dict(tower.state_dict())
    return model


def trained(model):
    """{name: module} of the trained modules."""
    return {"projector": model.model.multi_modal_projector, "language": model.model.language_model}


def encode(processor, conversations, tokens, hidden=None):
    """Encode conversations about one picture each, whose questions attend to the picture but not to each other.

    Args:
        conversations: N lists of Scenes.
        tokens: number of tokens of a picture.
        hidden: (N, tokens) bool, tokens of the picture that nothing else attends to.
    Returns:
        {"input_ids", "labels", "position_ids": (N, L), "attention_mask": (N, 1, L, L)}, padded on the right; labels are -100
        except on answers, positions are as if each question were the only one, the mask is added to attention scores.
    """

    def ids_of(text):
        return processor.tokenizer(text, add_special_tokens=False).input_ids

    picture = ids_of("user: " + "<image> " * tokens)
    rows = []
    for scenes in conversations:
        row = [(i, -100, place, 0) for place, i in enumerate(picture)]
        for turn, s in enumerate(scenes, 1):
            asked, answer = ids_of(f"{s.question} assistant:"), [*ids_of(s.answer), processor.tokenizer.eos_token_id]
            pairs = [(i, -100) for i in asked] + [(i, i) for i in answer]
            row += [(i, label, len(picture) + n, turn) for n, (i, label) in enumerate(pairs)]
        rows.append(row)
    longest = max(map(len, rows))
    empty = (processor.tokenizer.pad_token_id, -100, 0, -1)
    ids, labels, places, turns = torch.tensor([row + [empty] * (longest - len(row)) for row in rows]).unbind(2)
    sees = (turns[:, None, :] == 0) | (turns[:, None, :] == turns[:, :, None])
    sees &= torch.ones(longest, longest, dtype=torch.bool).tril()
    if hidden is not None:
        begin = picture.index(processor.image_token_id)
        sees[:, :, begin : begin + tokens] &= ~hidden[:, None, :]
        sees |= torch.eye(longest, dtype=torch.bool)
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    return {"input_ids": ids, "labels": labels, "position_ids": places, "attention_mask": mask[:, None]}


class World:
    """The icons of the drawings that training sees."""

    def __init__(self):
        self.concepts = emoji.concepts()
        self.pictures = emoji.pictures(self.concepts)
        self.icons = emoji.icons(self.concepts, progress=progress.bar)
        seen = [i for i, p in enumerate(self.pictures) if p.seen]
        kinds = {k: [i for i in seen if self.concepts[self.pictures[i].concept].kind == k] for k in ("identity", "object")}
        self.rows = {k: np.array(rows) for k, rows in kinds.items()}

    def batch(self, rng, several, tokens):
        """BATCH conversations, their pictures (BATCH, 3, S, S) in [0, 1], and the mask of hidden tokens (BATCH, tokens)."""
        world = self.concepts, self.pictures
        asked = [canvases.conversation(rng, world, self.rows, several) for _ in range(BATCH)]
        x = canvases.paint(self.icons, [scenes[0] for scenes in asked], rng, wider=True)
        hidden = torch.from_numpy(rng.random((BATCH, tokens)) < HIDDEN)
        hidden[:, 0] = False  # the class token
        hidden[[len(scenes[0].icons) > 1 for scenes in asked]] = False
        return asked, x, hidden


def answers_loss(model, x, packed):
    """Mean cross entropy of the answers' tokens; no other logits are computed.

    Args:
        x: pictures (N, 3, S, S), normalised.
        packed: output of `encode`.
    """
    labels = packed["labels"][:, 1:]
    inputs = {k: v for k, v in packed.items() if k != "labels"}
    states = model.model(pixel_values=x, **inputs).last_hidden_state[:, :-1]
    kept = labels != -100
    return F.cross_entropy(model.lm_head(states[kept]), labels[kept])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=cli.within(cli.Count), default=STEPS, help="training steps")
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0)
    parser.add_argument("--out", type=Path, default="data/models/mini-llava", help="folder to write")
    parser.add_argument("--checkpoint", type=Path, default="results/train/mini-llava", help="folder of the checkpoint")
    args = parser.parse_args(argv)
    out, checkpoint = files.resolve(args.out), files.resolve(args.checkpoint)
    torch.manual_seed(args.seed)
    world, clip = World(), checkpoint / "mini-clip-hf"
    convert_clip.convert(files.resolve("data/models/mini-clip"), clip)
    processor = make_processor(clip, world.concepts)
    model = make_model(clip, processor.tokenizer)
    model.model.vision_tower.eval().requires_grad_(False)

    def loss_of(step):
        rng = np.random.default_rng([args.seed, 11, step])
        tokens = model.config.image_seq_length
        asked, x, hidden = world.batch(rng, ALONE if step < FIRST * args.steps else SEVERAL, tokens)
        return answers_loss(model, x * 2 - 1, encode(processor, asked, tokens, hidden))

    sources = (__file__, canvases.__file__, emoji.__file__)
    part = Part("llava", trained(model), RATE, args.steps, checkpoint, sources, decay=0.05)
    found = part.run(loss_of)
    state = {f"{n}.{k}": t.half().contiguous() for n, m in found.items() for k, t in m.state_dict().items()}
    processor.save_pretrained(out)
    model.config.save_pretrained(out)
    with files.replacing(out / "language.safetensors") as temporary:
        save_file(state, temporary)
    record = {
        "command": f"python src/demo/train_vlm.py --steps {args.steps} --seed {args.seed}",
        "minutes": round(part.spent / 60, 1),
        "parameters": sum(t.numel() for t in state.values()),
        "threads": torch.get_num_threads(),
        "source": "drawings of data/emoji/ (see NOTICE)",
        "licence": "CC-BY-SA-4.0, as the share-alike icon sets in it ask",
        "versions": cli.versions(),
    }
    files.write_json(out / "training.json", record)
    print(json.dumps(record["parameters"]), f"parameters, {part.step} steps -> {out}")


if __name__ == "__main__":
    cli.exit_with(main)
