"""The Python face on models of true size with random weights: what it does not know it cannot forget, and it says so."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import slug
from slug import files, system
from slug.errors import SlugError

# So many that a model of random weights hardly calls everything by the one name that is forgotten.
CLASSES = ["ant", "baby", "bento box", "lemon", "bell", "key", "crab", "pear", "taxi", "tiger", "owl", "fox"]


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


def hugging_face(folder, tokenizer, *, text=None, vision=None, projection=512, dtype=torch.float32):
    """Write a CLIP of transformers with the sizes of ViT-B/32, but for those that are given, and the vocabulary of the
    embedded model's tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    small = json.loads((tokenizer / "config.json").read_text())["text_config"]
    text = {k: small[k] for k in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")} | (text or {})
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    CLIPModel(config).to(dtype).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder)
    settings = json.loads((tokenizer / "preprocessor_config.json").read_text())
    settings |= {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


def load(kind, tmp_path, tiny_clip):
    import slug.torchvision_cpu

    import open_clip

    if kind == "ViT-B-32":
        return slug.load("ViT-B-32", pretrained="random", device="cpu")
    if kind == "transformers":
        return slug.load(hugging_face(tmp_path / "hf", tiny_clip / "hugging_face"), device="cpu")
    return slug.load(open_clip.create_model("ViT-B-16-SigLIP", pretrained=None), tokenizer=lambda texts: words(texts, 64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViT-B-32", "transformers", "ViT-B-16-SigLIP"])
def test_the_ten_lines_run(kind, pictures, tmp_path, tiny_clip):
    model = load(kind, tmp_path, tiny_clip)
    before = files.tensor_hash(model.parameters)
    said = []
    how = {"classes": CLASSES, "evaluations": 2, "say": said.append, "eval_batch_size": 16}
    edit = slug.forget(model, "Zoe", images=str(pictures / "own"), retain=str(pictures / "others"), **how)
    assert "Zoe: " in str(edit) and files.tensor_hash(model.parameters) == before
    found = [split["original"] for split in edit.record["splits"].values()]
    known = sum(f["forget_recognised"] for f in found) >= 0.5 * sum(f["n_forget"] for f in found)  # by chance
    assert known or any("there is little to forget" in line for line in said)
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


WHOLE = (12, 32)  # blocks of SDXL's text encoders


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [(3, 3), WHOLE], ids=["few blocks", "all blocks"])
def test_both_text_encoders_of_an_sdxl_forget(blocks, pictures, tmp_path, tiny_clip):
    """Text encoders of SDXL's widths, ViT-L's and bigG's, and of its depth where the memory allows it. What is not edited is
    small: the UNet, the VAE, and the vision towers of the CLIPs; so is the vocabulary."""
    import diffusers

    if blocks == WHOLE and system.free_memory(torch.device("cpu")) < 20e9:
        pytest.skip("all blocks of both text encoders need 20 GB of free memory")
    sizes = (768, 12, 3072, "quick_gelu", 768), (1280, 20, 5120, "gelu", 1280)
    clips = []
    for number, (width, heads, inner, activation, projection) in enumerate(sizes):
        text = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner, "hidden_act": activation}
        text |= {"num_hidden_layers": blocks[number], "projection_dim": projection}
        vision = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2}
        how = {"text": text, "vision": vision, "projection": projection, "dtype": torch.float16}
        clips.append(hugging_face(tmp_path / f"clip-{number}", tiny_clip / "hugging_face", **how))
    tiny.write_pipeline_xl(tmp_path / "xl", *map(Path, clips))
    pipe = slug.load_pipeline(str(tmp_path / "xl"), *clips, device="cpu", steps=2)
    before = pipe.weights_hash()
    how = {"classes": CLASSES, "evaluations": 2, "say": lambda line: None, "eval_batch_size": 16}
    how |= {"images": str(pictures / "own"), "retain": str(pictures / "others")}
    for name in ("Zoe", "Max", "Ida"):
        # A CLIP of random weights may call all pictures by one name, and then that one is refused.
        with contextlib.suppress(SlugError):
            edit = slug.forget(pipe, name, **how)
            break
    assert pipe.weights_hash() == before and edit.record["towers"].keys() == {"text_encoder", "text_encoder_2"}
    del pipe
    delta = edit.save(str(tmp_path / "edit.delta.safetensors"))
    edit = None  # it holds the model
    folders = [str(tmp_path / "xl"), slug.apply(delta, str(tmp_path / "xl"), str(tmp_path / "edited"))]
    folders.append(slug.revert("edit.delta.safetensors", folders[1], str(tmp_path / "back")))
    drawn = []
    for folder in folders:
        line = diffusers.DiffusionPipeline.from_pretrained(folder, add_watermarker=False, dtype=torch.float32)
        noise = torch.Generator().manual_seed(0)
        how = {"num_inference_steps": 2, "height": 16, "width": 16, "generator": noise, "output_type": "np"}
        drawn.append(line(name, **how).images)
    assert not np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], drawn[2])
    for part in ("text_encoder", "text_encoder_2"):
        files_of = [hashlib.sha256((Path(f) / part / "model.safetensors").read_bytes()).digest() for f in folders]
        assert files_of[0] != files_of[1] and files_of[0] == files_of[2]


def test_the_tokenizer_of_the_test_ends_every_text_with_its_largest_number():
    assert words(["an ant", "a much longer text"]).max(dim=1).values.tolist() == [999, 999]
