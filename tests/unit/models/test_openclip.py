"""CLIPs of the open_clip library."""

import open_clip
import pytest
import torch
from transformers import RobertaConfig

from slug.models.openclip import OpenClip, _attend


@pytest.mark.parametrize("name", ["ViT-B-32", "EVA01-g-14", "RN50", "convnext_base", "roberta-ViT-B-32"])
def test_no_family_has_an_embedding_for_a_layer(name, tmp_path):
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    own = config.pop("custom_text", "hf_model_name" in text)
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        RobertaConfig(num_hidden_layers=1, type_vocab_size=1).save_pretrained(tmp_path)
        text |= {"hf_model_name": str(tmp_path), "hf_model_pretrained": False}
    with torch.device("meta"):
        module = (open_clip.CustomTextCLIP if own else open_clip.CLIP)(**config)
    clip = OpenClip(module, None, open_clip.image_transform(64, is_train=False), label=name, tag=name)
    found = clip.candidates()
    words = ("cls_token", "pos_embed", "position", "token", "word_embeddings", "class_embedding")
    assert any(word in n for n in clip.parameters for word in words)
    assert not [n for n in found if any(word in n for word in words)]
    assert set(found.values()) == {"vision", "language"} and any("conv" in n or "patch_embed" in n for n in found)
    assert clip.family == ("open_clip_vit" if name == "ViT-B-32" else "open_clip")


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_the_librarys(same, bias):
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=True).eval()
    keys = torch.randn(3, 5, 8)
    query = keys if same else torch.randn(3, 1, 8)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[:, 3:] = True
    with torch.no_grad():
        wanted, _ = attention(query, keys, keys, key_padding_mask=hidden, need_weights=False)
        found = attention.out_proj(_attend(attention, query, keys, ~hidden[:, None, None]))
    assert torch.allclose(found, wanted, atol=1e-6)
