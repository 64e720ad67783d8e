"""Pipelines of Stable Diffusion XL: both text encoders with their CLIPs, and what of each reaches the pictures."""

import shutil

import pytest
import tiny
import torch

import slug
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.models import pipeline_folders, sdxl

PROMPTS = ["a bell", "a key"]


@pytest.fixture(scope="module")
def pipeline(tiny_xl):
    return tiny.load_pipeline_xl(tiny_xl)


def test_pictures_are_those_of_the_library(pipeline, tiny_xl):
    import diffusers

    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_xl / "pipeline", add_watermarker=False)
    assert type(pipe).__name__ == "StableDiffusionXLPipeline"
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    how = {"num_inference_steps": pipeline.steps, "guidance_scale": pipeline.guidance, "output_type": "pt"}
    wanted = pipe("a key", latents=noise, height=16, width=16, **how).images
    found = pipeline.generate(["a bell", "a key"], [3, 7])
    assert (found[1].float() - (wanted[0] * 255).round()).abs().max() <= 1
    assert not torch.equal(found[0], found[1])


def test_the_empty_prompt_is_encoded_where_the_pipeline_says_so(pipeline, monkeypatch):
    zeros = pipeline.conditions(["a key"])
    settings = type(pipeline.pipe.config)(dict(pipeline.pipe.config) | {"force_zeros_for_empty_prompt": False})
    monkeypatch.setattr(pipeline.pipe, "_internal_dict", settings)
    empty = pipeline.conditions(["a key"])
    assert zeros.keys() == empty.keys() and len(empty) == 4
    for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
        assert not zeros[name].any() and empty[name].any()


def test_every_candidate_of_either_encoder_reaches_the_cross_attention_and_no_other_layer_is_one(pipeline):
    names = pipeline.candidates()
    assert {n.split(".")[0] for n in names} == {"text_encoder", "text_encoder_2"}
    assert all(".layers.0." in n for n in names)  # of two blocks; nor is the projection one
    before = pipeline.embed(PROMPTS)
    halves = before.chunk(2, -1)
    for name in names:
        with Edit(tiny.strong_edit(pipeline, name)).applied(pipeline):
            found = pipeline.embed(PROMPTS).chunk(2, -1)
        moved = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(found, halves, strict=True)]
        assert moved == [name.startswith("text_encoder."), name.startswith("text_encoder_2.")], name
    assert torch.equal(pipeline.embed(PROMPTS), before)


@pytest.mark.parametrize("tower", sdxl.ENCODERS)
def test_each_tower_has_the_weights_of_its_clip(pipeline, tower):
    host = pipeline.towers[tower]
    assert host.tensors and all(torch.equal(p, host.clip.parameters[n]) for n, p in host.tensors.items())
    assert tower in host.label and host.candidates()


# ------------------------------------------------------------------------------------------------------------- refusals


def test_one_clip_for_two_encoders_names_the_argument_that_is_missing(tiny_xl):
    with pytest.raises(SlugError, match=r"has two text encoders \(StableDiffusionXLPipeline\).* clip_2=") as error:
        slug.load_pipeline(str(tiny_xl / "pipeline"), str(tiny_xl / "first"), device="cpu")
    assert "\n" not in str(error.value)


def test_two_clips_for_one_encoder_are_refused(tiny_pipeline):
    clip = str(tiny_pipeline / "hugging_face")
    with pytest.raises(SlugError, match=r"has one text encoder \(StableDiffusionPipeline\); leave clip_2= out"):
        slug.load_pipeline(str(tiny_pipeline / "pipeline"), clip, clip, device="cpu")


def test_clips_in_the_wrong_order_are_refused(tiny_xl):
    with pytest.raises(SlugError, match=r"second is not the CLIP of this pipeline's text_encoder: .* differs"):
        slug.load_pipeline(str(tiny_xl / "pipeline"), str(tiny_xl / "second"), str(tiny_xl / "first"), device="cpu")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (["text_encoder", "text_encoder_2", "text_encoder_3"], "with text_encoder and text_encoder_2 and text_encoder_3"),
        (["text_encoder_2"], "is a SomePipeline with text_encoder_2; supported are"),
    ],
)
@pytest.mark.parametrize("clips", [1, 2])
def test_pipelines_of_other_text_encoders_are_refused(held, said, clips):
    index = {"_class_name": "SomePipeline"} | {n: ["transformers", "CLIPTextModel"] for n in held}
    with pytest.raises(SlugError, match=said):
        pipeline_folders.check_encoders(index, "x", sdxl.ENCODERS[:clips])


def test_a_damaged_second_encoder_is_said_in_one_line(tiny_xl, tmp_path):
    shutil.copytree(tiny_xl / "pipeline", tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "text_encoder_2")
    with pytest.raises(SlugError, match="cannot load the pipeline") as error:
        slug.load_pipeline(str(tmp_path / "m"), str(tiny_xl / "first"), str(tiny_xl / "second"), device="cpu")
    assert "\n" not in str(error.value)
