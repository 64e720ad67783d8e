"""Host models: a pipeline and a vision-language model, each with the CLIP whose tower it uses."""

import pytest
import tiny
import torch

from slug import models
from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.errors import SlugError


@pytest.fixture(params=["tiny_pipeline", "tiny_llava"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def host(folder):
    return tiny.load_llava(folder) if (folder / "llava").exists() else tiny.load_pipeline(folder)


def tower_of(host):
    return host.pipe.text_encoder if host.encoder == "language" else host.module.model.vision_tower


def test_the_hosts_tower_has_the_clips_weights(host):
    shared = {n: p for n, p in host.tensors.items() if n in host.clip.parameters}
    assert shared and set(host.candidates()) <= shared.keys()
    assert all(torch.equal(p, host.clip.parameters[n]) for n, p in shared.items())
    assert {host.clip.tower(n) for n in shared} == {host.encoder}


def test_another_clip_is_refused(host, tmp_path):
    tiny.write_random_clip(tmp_path, seed=1)
    host.clip = models.load(clip_model_id=str(tmp_path / "hugging_face"))
    with pytest.raises(SlugError, match=r"hugging_face is not the CLIP of this host: .* differs"):
        host.tower_tensors(tower_of(host), "host")


def test_a_module_without_the_clips_names_is_refused(host):
    with pytest.raises(SlugError, match="no parameter has a name in common"):
        host.tower_tensors(torch.nn.Linear(2, 2), "host")


def test_a_layer_of_a_group_that_the_host_does_not_read_whole_is_no_candidate(host):
    name = next(n for n in host.candidates() if ".fc1." in n)
    del host.tensors[name.replace(".fc1.", ".fc2.")]
    assert name not in host.candidates()


def test_a_delta_of_the_host_gives_back_its_edit(host, tmp_path):
    edit = tiny.strong_edit(host, host.candidates()[0])
    path = tmp_path / "a.delta.safetensors"
    deltas.save(path, host, edit, name="x", layer="y", step=1.0, metrics={})
    assert tiny.same_tensors(deltas.of_model(host, path), edit)


def test_a_delta_of_other_weights_is_refused(host, tmp_path):
    name = host.candidates()[0]
    path = tmp_path / "a.delta.safetensors"
    deltas.save(path, host, tiny.strong_edit(host, name), name="x", layer="y", step=1.0, metrics={})
    with torch.no_grad():
        host.tensors[name].add_(1)
    with pytest.raises(SlugError, match="made for other weights"):
        deltas.of_model(host, path)


def test_the_hash_is_of_all_weights_and_comes_back_with_them(host):
    before = host.weights_hash()
    with Edit(tiny.strong_edit(host, host.candidates()[0])).applied(host):
        assert host.weights_hash() != before
    assert host.weights_hash() == before


def test_parameters_are_counted_over_all_modules(host):
    assert host.parameter_count > sum(p.numel() for p in host.tensors.values())
