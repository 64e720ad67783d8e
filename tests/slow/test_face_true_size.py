"""The Python face on models of true size with random weights: what it does not know it cannot forget, and it says so."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import slug
from slug import files

CLASSES = ["ant", "baby", "bento box", "lemon"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """12 pictures of noise that differ, and 42 others with captions."""
    out, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for part, count in (("own", 12), ("others", 42)):
        (out / part).mkdir()
        for i in range(count):
            colours = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((64, 64), Image.Resampling.NEAREST).save(out / part / f"{i}.png")
            if part == "others":
                (out / part / f"{i}.txt").write_text(f"a {CLASSES[i % 4]} {i}")
    return out


def words(texts, length=16):
    """A tokenizer for modules whose own is not at hand: each word is a number below 1,000."""
    tokens = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        ids = [1 + sum(word.encode()) % 998 for word in text.split()][: length - 1]
        row[: len(ids) + 1] = torch.tensor([*ids, 999])
    return tokens


def hugging_face(folder, tokenizer):
    """A CLIP of transformers with the sizes of ViT-B/32 and the vocabulary of the embedded model's tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    small = json.loads((tokenizer / "config.json").read_text())["text_config"]
    text = {k: small[k] for k in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder)
    settings = json.loads((tokenizer / "preprocessor_config.json").read_text())
    settings |= {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return slug.load(str(folder), device="cpu")


def load(kind, tmp_path, tiny_clip):
    import slug.torchvision_cpu

    import open_clip

    if kind == "ViT-B-32":
        return slug.load("ViT-B-32", pretrained="random", device="cpu")
    if kind == "transformers":
        return hugging_face(tmp_path / "hf", tiny_clip / "hugging_face")
    return slug.load(open_clip.create_model("ViT-B-16-SigLIP", pretrained=None), tokenizer=lambda texts: words(texts, 64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViT-B-32", "transformers", "ViT-B-16-SigLIP"])
def test_the_ten_lines_run(kind, pictures, tmp_path, tiny_clip):
    model = load(kind, tmp_path, tiny_clip)
    before = files.tensor_hash(model.parameters)
    said = []
    how = {"classes": CLASSES, "evaluations": 2, "say": said.append, "eval_batch_size": 16}
    edit = slug.forget(model, "Zoe", images=str(pictures / "own"), retain=str(pictures / "others"), **how)
    assert "Zoe: " in str(edit) and said and files.tensor_hash(model.parameters) == before
    mine = str(pictures / "own" / "0.png")
    assert len(edit.compare(mine, names=["Zoe", "ant"]).table) == 2
    with edit.applied(model):
        assert files.tensor_hash(model.parameters) != before
        model.classify([mine], ["Zoe", "ant"])
    assert edit.plot("tradeoff").size[0] > 400
    edit.report(str(tmp_path / "report.html"))
    again = slug.load_edit(edit.save(str(tmp_path / "zoe.safetensors")))
    with again.scaled(0.8).applied(model):
        pass
    assert files.tensor_hash(model.parameters) == before


def test_the_tokenizer_of_the_test_ends_every_text_with_its_largest_number():
    assert words(["an ant", "a much longer text"]).max(dim=1).values.tolist() == [999, 999]
