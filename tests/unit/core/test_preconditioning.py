"""Input moments of layers, and the direction that they give."""

import plain
import pytest
import tiny
import torch

from slug.core import gradients, losses, preconditioning
from slug.data.pairs import some


def entering(clip, images, tokens, trim=True):
    """{parameter name: (rows, d) what enters it} by hooks, of parameters that modules and blocks' norms make easy to see."""
    seen, hooks = {}, []
    modules, names = dict(clip.module.named_modules()), set(clip.parameters)
    for where, module in modules.items():
        if f"{where}.weight" in names and isinstance(module, torch.nn.Linear):
            hooks.append(
                module.register_forward_pre_hook(lambda m, x, n=f"{where}.weight": seen.setdefault(n, []).append(x[0]))
            )
        if where.endswith("resblocks.0.ln_1"):  # open_clip's attention is given the norm's output
            name = where.replace("ln_1", "attn.in_proj_weight")
            hooks.append(module.register_forward_hook(lambda m, x, y, n=name: seen.setdefault(n, []).append(y)))
        if where == "visual.ln_post":
            hooks.append(module.register_forward_hook(lambda m, x, y: seen.setdefault("visual.proj", []).append(y)))
    with torch.no_grad():
        clip.encode_image(images), clip.encode_text(tokens, trim)
    for hook in hooks:
        hook.remove()
    return {n: torch.cat([x.flatten(0, -2) for x in parts]) for n, parts in seen.items()}


def agrees(found, x, atol=1e-4):
    """Whether a moment is that of the rows of x (n, d)."""
    return torch.allclose(found[0].float(), x.T @ x, rtol=1e-3, atol=atol)


def test_moments_are_of_what_enters_each_matrix(clip):
    batch = tiny.pairs(10)
    found = preconditioning.moments(clip, batch, batch_size=4)
    tokens = clip.tokenize(batch.captions)
    each = [entering(clip, batch.images[[i]], tokens[[i]]) for i in range(10)]  # one text at a time: without padding
    seen = {n: torch.cat([one[n] for one in each]) for n in each[0]}
    assert len(seen) >= 11
    assert all(agrees(found[name], x) for name, x in seen.items())


def test_the_inputs_of_a_convolution_are_its_patches(clip):
    batch = tiny.pairs(10)
    name = next(n for n, p in clip.parameters.items() if p.ndim == 4)
    side = clip.parameters[name].shape[-1]
    patches = clip.normalise(batch.images).unfold(2, side, side).unfold(3, side, side)  # (N, 3, rows, columns, side, side)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    assert agrees(preconditioning.moments(clip, batch)[name], patches, atol=1e-2)


def test_every_matrix_that_may_be_edited_has_a_moment_that_fits(clip):
    found = preconditioning.moments(clip, tiny.pairs(4))
    for name in clip.candidates():
        parameter = clip.parameters[name]
        if parameter.ndim > 1:
            moment, axis = found[name]
            assert len(moment) == parameter.flatten(1).shape[axis]


def test_padded_moments_count_what_stands_behind_a_texts_end(clip):
    batch = tiny.pairs(10)
    padded = preconditioning.moments(clip, batch, encoder="language", padded=True)
    seen = entering(clip, batch.images, clip.tokenize(batch.captions), trim=False)
    seen = {n: x for n, x in seen.items() if clip.tower(n) == "language"}
    assert all(agrees(padded[name], x) for name, x in seen.items())
    trimmed = preconditioning.moments(clip, batch, encoder="language")
    assert any((padded[n][0] - trimmed[n][0]).norm() > 0.1 * trimmed[n][0].norm() for n in seen)


@pytest.mark.parametrize("encoder", ["vision", "language"])
def test_moments_of_one_encoder_are_of_its_matrices(clip, encoder):
    found = preconditioning.moments(clip, tiny.pairs(4), encoder=encoder)
    assert {clip.tower(n) for n in found} == {encoder}


@pytest.mark.parametrize("rows", [None, [3]])
def test_moments_of_two_processes_add_up_to_those_of_one(clip, monkeypatch, rows):
    batch = tiny.pairs(10)
    whole = preconditioning.moments(clip, batch, rows=rows, batch_size=4)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(preconditioning.distributed, "mine", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(preconditioning.distributed, "add_up", lambda tensor: None)
        parts.append(preconditioning.moments(clip, batch, rows=rows, batch_size=4))
    assert list(parts[0]) == list(parts[1]) == list(whole)  # also where one of them has no batch
    for name, (moment, axis) in whole.items():
        assert torch.allclose(parts[0][name][0] + parts[1][name][0], moment, rtol=1e-4) and parts[1][name][1] == axis
    assert (rows is not None) == (not any(moment.any() for moment, _ in parts[1].values()))


def test_moments_without_some_rows_are_those_of_the_others(clip):
    batch = tiny.pairs(10)
    gone = [1, 4, 8]
    found = preconditioning.combined(
        preconditioning.moments(clip, batch), [preconditioning.moments(clip, batch, rows=gone, batch_size=2)], sign=-1
    )
    wanted = preconditioning.moments(clip, some(batch, [i for i in range(10) if i not in gone]))
    assert found.keys() == wanted.keys()
    for name, (moment, axis) in wanted.items():
        assert (found[name][0] - moment).norm() <= 1e-5 * moment.norm() and found[name][1] == axis, name


CAPTIONS = {  # of the retain set and of three forget sets
    "": "red cube; a Noto sky",
    "Noto": "Noto bell; Noto key",
    "bell": "Noto bell; Blob bell",
    "Blob": "Blob bell; Blob key",
}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("Noto", [("", 0), ("bell", 1), ("Blob", 0), ("Blob", 1)]),
        ("Blob", [("", 0), ("", 1), ("Noto", 0), ("Noto", 1), ("bell", 0)]),
        ("Fluent", [(n, i) for n in CAPTIONS for i in (0, 1)]),
    ],
)
def test_retained_pairs_do_not_say_the_name(clip, name, rows):
    """Neither those of the retain set nor those of other forget sets: a style's set shows objects, and theirs the style."""
    held = {n: tiny.pairs(2, seed=i)._replace(captions=said.split("; ")) for i, (n, said) in enumerate(CAPTIONS.items())}
    sums = {n: preconditioning.moments(clip, pairs) for n, pairs in held.items()}
    found = preconditioning.retained(clip, held, sums, name)
    each = [preconditioning.moments(clip, held[n], rows=[i]) for n, i in rows]
    for matrix, (moment, axis) in found.items():
        wanted = sum(one[matrix][0] for one in each)
        assert (moment - wanted).norm() <= 1e-5 * wanted.norm(), matrix
        assert axis == each[0][matrix][1]


@pytest.fixture
def found(clip):
    """Moments of some retain pairs."""
    return preconditioning.moments(clip, tiny.pairs(10, seed=2))


@pytest.fixture
def gradient(clip):
    """The gradient of some forget pairs."""
    return gradients.compute(clip, tiny.pairs(6, seed=1), losses.cosine_embedding)[0]


def test_a_preconditioned_step_moves_the_layers_output_least_for_its_gain(found, gradient):
    directions = preconditioning.preconditioned(gradient, found, damping=0.1)
    g = torch.Generator().manual_seed(0)
    for name, (moment, axis) in found.items():
        plain_g, d = (x[name].double().flatten(1).movedim(axis, 1) for x in (gradient, directions))
        if not plain_g.any():
            continue
        ridge = 0.1 * moment.diagonal().mean()

        def cost(change, moment=moment, ridge=ridge):
            return torch.trace(change @ moment @ change.T) + ridge * change.square().sum()

        gain = (plain_g * d).sum()
        assert gain > 0, name
        noise = torch.randn(d.shape, generator=g, dtype=d.dtype) * d.norm() / d.numel() ** 0.5
        for other in (plain_g, d + 0.1 * noise, d - 0.1 * noise):
            other = other * gain / (plain_g * other).sum()
            assert cost(other) >= cost(d) * (1 - 1e-5), name


def test_a_preconditioned_gradient_has_the_gradients_norm(found, gradient):
    directions = preconditioning.preconditioned(gradient, found)
    for name, g in gradient.items():
        assert directions[name].norm().item() == pytest.approx(g.norm().item(), rel=1e-5), name


def test_a_parameter_without_moment_or_gradient_keeps_its_gradient(clip, found, gradient):
    directions = preconditioning.preconditioned(gradient, found)
    kept = [n for n in gradient if n not in found or not gradient[n].any()]
    assert all(torch.equal(directions[n], gradient[n]) for n in kept)
    # open_clip's norms may be edited and have no moment; the published Hugging Face runs leave them out.
    assert any(n not in found for n in clip.candidates()) == (clip.family != "hf")


def test_endless_damping_gives_the_gradient(found, gradient):
    endless, damped = (preconditioning.preconditioned(gradient, found, damping=d) for d in (1e9, 0.1))
    assert plain.distance(endless, gradient) < 1e-5 < plain.distance(damped, gradient)


def test_other_functions_are_not_taken_for_a_layers_input():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    convolution = torch.nn.Parameter(torch.randn(2, 3, 3, 3))
    with preconditioning.Moments({"w": weight, "c": convolution}) as watched:
        torch.randn(5, 4) @ weight.T
        torch.nn.functional.conv2d(torch.randn(1, 6, 5, 5), convolution, groups=2)
    assert not watched.found


def test_products_and_convolutions_are_seen():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    convolution = torch.nn.Parameter(torch.randn(2, 3, 3, 3))
    x = torch.randn(5, 4)
    with preconditioning.Moments({"w": weight, "c": convolution}) as watched:
        x @ weight
        torch.nn.functional.conv2d(torch.randn(1, 3, 5, 5), convolution, stride=2, padding=1)
    assert watched.found["w"][1] == 0
    assert torch.allclose(watched.found["w"][0].float(), x.T @ x, atol=1e-5)
    assert watched.found["c"][0].shape == (27, 27)
