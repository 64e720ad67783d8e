"""CLIPs of the transformers library."""

import tiny
import torch

from slug.models.clip import ALONE


def test_q_k_v_and_the_mlp_move_together(tiny_clip):
    clip = tiny.load(tiny_clip, "hugging_face")
    attention = "text_model.encoder.layers.1.self_attn."
    qkv = tuple(f"{attention}{p}_proj.weight" for p in "qkv")
    assert {clip.group(n) for n in qkv} == {qkv}
    assert clip.group(f"{attention}out_proj.weight") == (f"{attention}out_proj.weight",)
    mlp = tuple(f"vision_model.encoder.layers.0.mlp.fc{i}.weight" for i in "12")
    assert {clip.group(n) for n in mlp} == {mlp}
    assert all(n in clip.parameters for name in clip.candidates() for n in clip.group(name))


def test_a_layer_can_move_without_its_group(clip):
    assert all(clip.group(name + ALONE) == (name,) for name in clip.candidates())


def test_texts_are_padded_to_the_longest_and_end_with_the_first_end_token(tiny_clip):
    clip = tiny.load(tiny_clip, "hugging_face")
    tokens, end = clip.tokenize(["a", "a photo of a cat"]), clip.module.text_model.eos_token_id
    lengths = clip.text_lengths(tokens)
    assert tokens.shape == (2, lengths.max()) and lengths[0] < lengths[1]
    assert all(row[n - 1] == end and end not in row[: n - 1] for row, n in zip(tokens, lengths.tolist(), strict=True))


def test_an_older_configuration_pools_the_largest_token(tiny_clip):
    clip = tiny.load(tiny_clip, "hugging_face")
    clip.module.text_model.eos_token_id = 2
    assert clip.text_lengths(torch.tensor([[5, 9, 3, 3], [5, 6, 7, 8]])).tolist() == [2, 4]
