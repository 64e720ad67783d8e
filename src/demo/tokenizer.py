"""A small CLIP tokenizer with only those of CLIP's byte-pair merges that short English and this world's names need.

Any ordered subset of the merges is a tokenizer: it splits a word as CLIP does if all merges of the word are kept, and into
smaller pieces otherwise. It is stored in CLIP's own file format, which open_clip and transformers read.
"""

import itertools
import json

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

from open_clip.tokenizer import SimpleTokenizer

from demo import emoji

COMMON_MERGES = 1500  # CLIP's first merges are always kept: pieces of any English word
CONTEXT = 24


def build(folder):
    """Write vocab.json, merges.txt and the tokenizer's settings into `folder`; returns the vocabulary's size."""
    clip = SimpleTokenizer()
    ranks = clip.bpe_ranks
    used = {pair for pair, rank in ranks.items() if rank < COMMON_MERGES}
    world = emoji.concepts()
    texts = [c.name for c in world] + [c.alias for c in world] + list(emoji.STYLES.values())
    texts += [*emoji.PLAIN, *emoji.STYLED, *emoji.BESIDE, *emoji.NOISE, emoji.STYLE_PROMPT]
    for word in sorted({w for t in texts for w in clip.pat.findall(t.lower())}):
        pieces = [clip.byte_encoder[b] for b in word.encode()]
        pieces[-1] += "</w>"
        while len(pieces) > 1:  # the merges that CLIP applies to this word, in order
            pair = min(itertools.pairwise(pieces), key=lambda p: ranks.get(p, float("inf")))
            if pair not in ranks:
                break
            used.add(pair)
            merged, i = [], 0
            while i < len(pieces):
                if tuple(pieces[i : i + 2]) == pair:
                    merged.append("".join(pair))
                    i += 2
                else:
                    merged.append(pieces[i])
                    i += 1
            pieces = merged
    merges = sorted(used, key=ranks.get)
    alphabet = list(clip.byte_encoder.values())
    tokens = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]  # the end token must have the largest id, at which open_clip pools
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges), ""]))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return len(tokens)
