"""Gradients: against plain autograd and finite differences, batch by batch, and the sign of the step (traps 1 and 2)."""

import argparse
import copy

import pytest
import tiny
import torch

from slug.artifacts import gradient_files
from slug.core import gradients, layers, losses, preconditioning
from slug.core.edit import applied, edit_of
from slug.data.pairs import Pairs, some
from slug.errors import SlugError

LOSSES = (losses.cosine_embedding, losses.contrastive)


def plain_loss(clip, module, batch, loss):
    """The loss of a data.Pairs written out, through the library's own forward pass, in the module's precision."""
    pictures = clip.normalise(batch.images).to(module.logit_scale.dtype)
    tokens = clip.tokenize(batch.captions)
    if clip.family == "hf":
        out = module(input_ids=tokens, pixel_values=pictures)
        image, text = out.image_embeds, out.text_embeds
    else:
        image, text = module.encode_image(pictures), module.encode_text(tokens)
    image, text = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    if loss is losses.cosine_embedding:
        return torch.nn.functional.cosine_embedding_loss(image, text, torch.ones(len(image)))
    logits = module.logit_scale.exp() * image @ text.T
    return -(logits.log_softmax(0).diagonal().mean() + logits.log_softmax(1).diagonal().mean()) / 2


def plain_gradient(clip, batch, loss):
    """The gradient of one batch by backward() on a fresh copy of the model, in float64."""
    module = copy.deepcopy(clip.module).double().requires_grad_(True)
    plain_loss(clip, module, batch, loss).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in module.named_parameters()}


def by_batch(clip, batch, loss, ends):
    """The plain gradient of each batch; batch k ends before pair ends[k]."""
    cuts = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    return [plain_gradient(clip, Pairs(*(field[c] for field in batch[:3]), 0), loss) for c in cuts]


def mean(gradients, weights):
    """Weighted mean of several {name: tensor}."""
    total = sum(weights)
    return {n: sum(w * g[n] for w, g in zip(weights, gradients, strict=True)) / total for n in gradients[0]}


def distance(found, wanted):
    """Largest difference of two {name: tensor}, against the largest entry."""
    assert found.keys() == wanted.keys()
    size = max(w.abs().max() for w in wanted.values())
    return max((f - wanted[n]).abs().max() / size for n, f in found.items()).item()


# ------------------------------------------------------------------------------------------- trap 1: the mean of batches


def test_cosine_gradient_weighs_batches_by_their_pairs(clip):
    batch = tiny.pairs(10)
    found, figures = gradients.compute(clip, batch, losses.cosine_embedding, batch_size=4)
    one_by_one = by_batch(clip, batch, losses.cosine_embedding, [4, 8, 10])
    wanted = mean(one_by_one, [4, 4, 2])
    assert distance(found, wanted) < 1e-5
    assert figures["pairs"] == 10
    # With gradients not zeroed between batches the sum would hold the first batch three times; unweighted, the last twice.
    assert distance(mean(one_by_one, [12, 8, 2]), wanted) > 1e-2
    assert distance(mean(one_by_one, [1, 1, 1]), wanted) > 1e-2


def test_contrastive_gradient_is_the_mean_of_whole_batches(clip):
    batch = tiny.pairs(10)
    found, figures = gradients.compute(clip, batch, losses.contrastive, batch_size=4)
    one_by_one = by_batch(clip, batch, losses.contrastive, [4, 8, 10])
    wanted = mean(one_by_one[:2], [1, 1])
    assert distance(found, wanted) < 1e-5
    assert figures["pairs"] == 8
    assert distance(mean(one_by_one[:2], [2, 1]), wanted) > 1e-2
    assert distance(mean(one_by_one, [1, 1, 1]), wanted) > 1e-2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_set_smaller_than_a_batch_is_one_batch(clip, loss):
    batch = tiny.pairs(3)
    found, figures = gradients.compute(clip, batch, loss, batch_size=16)
    assert distance(found, plain_gradient(clip, batch, loss)) < 1e-5
    assert figures["loss"] == pytest.approx(plain_loss(clip, clip.module, batch, loss).item(), abs=1e-5)


def test_importance_is_the_mean_of_squared_batch_gradients(clip):
    batch = tiny.pairs(8)
    found, _ = gradients.compute(clip, batch, losses.contrastive, batch_size=4, square=True)
    one_by_one = by_batch(clip, batch, losses.contrastive, [4, 8])
    wanted = mean([{n: t**2 for n, t in g.items()} for g in one_by_one], [1, 1])
    assert distance(found, wanted) < 1e-5


def test_retain_gradient_does_not_hear_of_the_forget_gradient(clip):
    forget, retain = tiny.pairs(5, seed=1), tiny.pairs(8, seed=2)
    alone, _ = gradients.compute(clip, retain, losses.contrastive, batch_size=4)
    before = {n: p.clone() for n, p in clip.parameters.items()}
    gradients.compute(clip, forget, losses.cosine_embedding, batch_size=4)
    after, _ = gradients.compute(clip, retain, losses.contrastive, batch_size=4)
    assert tiny.same_tensors(alone, after)
    # Nothing stays behind in the model: no gradient, no changed weight, no training mode.
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters.values())
    assert all(torch.equal(p, before[n]) for n, p in clip.parameters.items()) and not clip.module.training


@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"), [(10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (8, True, [4, 4])]
)
def test_batches(n, drop_last, sizes):
    batches = gradients.batch_indices(n, 4, drop_last=drop_last)
    assert [len(b) for b in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(sum(sizes)))


# -------------------------------------------------------------------------------------------------------- whitened steps


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


def test_moments_are_of_what_enters_each_matrix(clip):
    batch = tiny.pairs(10)
    found = preconditioning.moments(clip, batch, batch_size=4)
    tokens = clip.tokenize(batch.captions)
    each = [entering(clip, batch.images[[i]], tokens[[i]]) for i in range(10)]  # one text at a time: without padding
    seen = {n: torch.cat([one[n] for one in each]) for n in each[0]}
    assert len(seen) >= 11 and seen.keys() <= found.keys()
    for name, x in seen.items():
        assert torch.allclose(found[name][0].float(), x.T @ x, rtol=1e-3, atol=1e-4), name
    convolution = next(n for n, p in clip.parameters.items() if p.ndim == 4)
    side = clip.parameters[convolution].shape[-1]
    patches = clip.normalise(batch.images).unfold(2, side, side).unfold(3, side, side)  # (N, 3, rows, columns, side, side)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    assert torch.allclose(found[convolution][0].float(), patches.T @ patches, rtol=1e-3, atol=1e-2)
    # Every matrix that may be edited has one, and it fits.
    for name in clip.candidates():
        parameter = clip.parameters[name]
        if parameter.ndim > 1:
            moment, axis = found[name]
            assert len(moment) == parameter.flatten(1).shape[axis]
    padded = preconditioning.moments(clip, batch, encoder="language", padded=True)
    seen = {n: x for n, x in entering(clip, batch.images, tokens, trim=False).items() if clip.tower(n) == "language"}
    for name, x in seen.items():
        assert torch.allclose(padded[name][0].float(), x.T @ x, rtol=1e-3, atol=1e-4), name
    alone = preconditioning.moments(clip, batch, encoder="language")
    assert {clip.tower(n) for n in alone} == {"language"} and alone.keys() == padded.keys() <= found.keys()
    assert any((padded[n][0] - alone[n][0]).norm() > 0.1 * alone[n][0].norm() for n in seen)


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
    found = preconditioning.added(
        preconditioning.moments(clip, batch), [preconditioning.moments(clip, batch, rows=gone, batch_size=2)], sign=-1
    )
    wanted = preconditioning.moments(clip, some(batch, [i for i in range(10) if i not in gone]))
    assert found.keys() == wanted.keys()
    for name, (moment, axis) in wanted.items():
        assert (found[name][0] - moment).norm() <= 1e-5 * moment.norm() and found[name][1] == axis, name


def test_a_record_is_stale_where_any_set_behind_its_gradients_changed(clip, tmp_path):
    args = argparse.Namespace(result_dir=tmp_path, tar_dir=tmp_path, train_data=tmp_path / "retain.tar", forget_data="")
    args.celeb_name = ["Noto", "Blob"]
    for name in ("retain", "Noto", "Blob"):
        (tmp_path / f"{name}.tar").write_text(name)
    written = gradient_files.folder(tmp_path, "Noto", clip.tag) / "forget_grads_ws.pt"
    gradient_files.save(written, {}, {"spared": {"Blob": "any"}})

    def changed(method, name):
        before = gradient_files.sources(args, clip, "Noto", method)
        (tmp_path / f"{name}.tar").write_text(f"other {name}")
        after = gradient_files.sources(args, clip, "Noto", method)
        (tmp_path / f"{name}.tar").write_text(name)
        return before != after

    seen = {m: [changed(m, n) for n in ("retain", "Noto", "Blob")] for m in ("calc_grad", "calc_grad_w", "calc_grad_ws")}
    assert seen == {"calc_grad": [True, True, False], "calc_grad_w": [True, True, False], "calc_grad_ws": [True, True, True]}
    (tmp_path / "retain.tar").unlink()
    with pytest.raises(SlugError, match="retain set not found"):
        gradient_files.sources(args, clip, "Noto", "calc_grad")


def test_what_stays_shows_the_name_nowhere(clip):
    """Of the retain set and the others' sets; a style's set shows objects, and theirs the style."""
    said = {
        "": "red cube; a Noto sky",
        "Noto": "Noto bell; Noto key",
        "bell": "Noto bell; Blob bell",
        "Blob": "Blob bell; Blob key",
    }
    held = {}
    for seed, (n, captions) in enumerate(said.items()):
        held[n] = tiny.pairs(2, seed=seed)._replace(captions=captions.split("; "))
    sums = {n: preconditioning.moments(clip, pairs) for n, pairs in held.items()}
    for name, kept in {
        "Noto": [("", 0), ("bell", 1), ("Blob", 0), ("Blob", 1)],
        "Blob": [("", 0), ("", 1), ("Noto", 0), ("Noto", 1), ("bell", 0)],
        "Fluent": [(n, i) for n in said for i in (0, 1)],
    }.items():
        found = preconditioning.staying(clip, held, sums, name)
        each = [preconditioning.moments(clip, held[n], rows=[i]) for n, i in kept]
        for matrix, (moment, axis) in found.items():
            wanted = sum(one[matrix][0] for one in each)
            assert (moment - wanted).norm() <= 1e-5 * wanted.norm() and axis == each[0][matrix][1], (name, matrix)


def test_a_whitened_step_moves_the_layer_least_for_its_gain(clip):
    forget, retain = tiny.pairs(6, seed=1), tiny.pairs(10, seed=2)
    plain, _ = gradients.compute(clip, forget, losses.cosine_embedding)
    found = preconditioning.moments(clip, retain)
    directions = preconditioning.whitened(plain, found, damping=0.1)
    g = torch.Generator().manual_seed(0)
    for name, (moment, axis) in found.items():
        gradient, d = (x[name].double().flatten(1).movedim(axis, 1) for x in (plain, directions))
        if not gradient.any():
            assert torch.equal(directions[name], plain[name])
            continue
        assert d.norm() == pytest.approx(gradient.norm().item(), rel=1e-5)

        ridge = 0.1 * moment.diagonal().mean()

        def cost(change, moment=moment, ridge=ridge):
            return torch.trace(change @ moment @ change.T) + ridge * change.square().sum()

        gain = (gradient * d).sum()
        assert gain > 0, name
        noise = torch.randn(d.shape, generator=g, dtype=d.dtype) * d.norm() / d.numel() ** 0.5
        for other in (gradient, d + 0.1 * noise, d - 0.1 * noise):
            other = other * gain / (gradient * other).sum()
            assert cost(other) >= cost(d) * (1 - 1e-5), name
    # Norms have no moment and keep their gradient; with endless damping every layer does.
    assert all(torch.equal(directions[n], plain[n]) for n in plain.keys() - found.keys())
    assert any(n not in found for n in clip.candidates()) == (clip.family != "hf")
    endless = preconditioning.whitened(plain, found, damping=1e9)
    assert distance(endless, plain) < 1e-5 < distance(directions, plain)


def test_transposes_and_other_functions_are_not_taken_for_a_layers_input():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    other = torch.nn.Parameter(torch.randn(2, 3, 3, 3))
    with preconditioning.Moments({"w": weight, "o": other}) as watched:
        torch.randn(5, 4) @ weight.T
        torch.nn.functional.conv2d(torch.randn(1, 6, 5, 5), other, groups=2)
    assert not watched.found
    with watched:
        x = torch.randn(5, 4)
        x @ weight
        torch.nn.functional.conv2d(torch.randn(1, 3, 5, 5), other, stride=2, padding=1)
    assert watched.found["w"][1] == 0 and torch.allclose(watched.found["w"][0].float(), x.T @ x, atol=1e-5)
    assert watched.found["o"][0].shape == (27, 27)


# --------------------------------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_agrees_with_finite_differences(clip, loss):
    batch = tiny.pairs(5)
    found, _ = gradients.compute(clip, batch, loss, batch_size=5)
    module = copy.deepcopy(clip.module).double().requires_grad_(False)
    parameters = dict(module.named_parameters())
    g = torch.Generator().manual_seed(0)
    names = [n for n in clip.candidates() if n.endswith(("proj.weight", "in_proj_weight", "projection", "conv1.weight"))]
    assert len(names) > 5
    for name in names:
        direction = torch.randn(found[name].shape, generator=g).double() + 3 * found[name].double() / found[name].norm()
        direction /= direction.norm()
        values = []
        for step in (1e-4, -2e-4):  # moves to +1e-4, then to -1e-4
            parameters[name] += step * direction
            values.append(plain_loss(clip, module, batch, loss).item())
        parameters[name] += 1e-4 * direction
        slope = (values[0] - values[1]) / 2e-4
        assert slope == pytest.approx((found[name].double() * direction).sum().item(), rel=1e-3, abs=1e-6), name


# ---------------------------------------------------------------------------------------------------- trap 2: the sign


def test_a_positive_step_lowers_the_cosine_of_the_forget_pairs(clip):
    batch = tiny.pairs(6)
    forget, _ = gradients.compute(clip, batch, losses.FORGET[""], batch_size=4)

    def cosine():
        image, text = tiny.features(clip, batch)
        return (image * text).sum(1).double().mean().item()

    start = cosine()
    for layer in clip.candidates():
        group = clip.group(layer)
        step = 0.05 * layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        with applied(clip, edit_of(clip, layer, forget, step)):
            assert cosine() < start - 1e-7, layer
        with applied(clip, edit_of(clip, layer, forget, -step)):
            assert cosine() > start + 1e-7, layer
        assert cosine() == start


def test_the_contrastive_form_has_the_same_sign(clip):
    batch = tiny.pairs(6)
    forget, _ = gradients.compute(clip, batch, losses.FORGET["_o"], batch_size=6)
    start = plain_loss(clip, clip.module, batch, losses.contrastive)
    layer = next(n for n in clip.candidates() if n in ("visual.proj", "visual_projection.weight"))
    step = 0.1 * layers.first_step([clip.parameters[layer]], [forget[layer]])
    with applied(clip, edit_of(clip, layer, forget, step)):
        assert plain_loss(clip, clip.module, batch, losses.contrastive) > start


def test_an_edit_is_the_step_times_the_gradient_of_the_whole_group(clip):
    forget, _ = gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)
    for layer in clip.candidates():
        edit = edit_of(clip, layer, forget, 2.5)
        assert tuple(edit) == clip.group(layer)
        assert all(torch.equal(t, 2.5 * forget[n]) for n, t in edit.items())


def test_both_families_have_the_same_gradients(tiny_clip):
    found = []
    for family in tiny.FAMILIES:
        clip = tiny.load(tiny_clip, family)
        grads, _ = gradients.compute(clip, tiny.pairs(5), losses.cosine_embedding)
        found.append({n: t.contiguous() for n, t in clip.canonical_views(grads).items()})
    assert distance(*found) < 1e-4


# --------------------------------------------------------------------------------------------------------------- files


def test_checkpointing_changes_no_gradient_and_keeps_less(clip):
    """Nothing between the ends of a stage is kept for the backward pass, which computes it again."""
    pairs, found, kept = tiny.pairs(8), [], []
    for clip.checkpointing in (False, True):
        found.append(gradients.compute(clip, pairs, losses.contrastive, batch_size=8)[0])
        sizes = {}
        clip.module.requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.update({t.data_ptr(): t.nbytes}), lambda t: t
        ):
            clip.encode_image(pairs.images)
        kept.append(sum(sizes.values()))
        clip.module.requires_grad_(False)
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, rtol=1e-5, atol=1e-7), name
    assert kept[1] < kept[0] / 3


def test_nan_is_refused_by_name(tiny_clip):
    clip = tiny.load(tiny_clip)
    clip.parameters["visual.proj"][0, 0] = torch.nan
    with pytest.raises(SlugError, match="NaN"):
        gradients.compute(clip, tiny.pairs(4), losses.cosine_embedding)


def test_a_gradient_file_is_a_plain_dict_and_stands_for_its_fingerprint_only(tmp_path):
    path, mark = tmp_path / "forget_grads.pt", {"model": "a", "data": "b"}
    grads = {"w": torch.tensor([1.0, 2.0])}
    gradient_files.save(path, grads, {**mark, "seconds": 1.5})
    assert tiny.same_tensors(torch.load(path, weights_only=True), grads)
    assert tiny.same_tensors(gradient_files.load(path, mark, "remake"), grads)
    assert gradient_files.is_valid(path, mark) and not gradient_files.is_valid(path, {**mark, "data": "c"})
    with pytest.raises(SlugError, match=r"stale \(data differ.*remake"):
        gradient_files.load(path, {**mark, "data": "c"}, "remake")
    path.write_bytes(path.read_bytes()[:-10])
    assert not gradient_files.is_valid(path, mark)
    with pytest.raises(SlugError, match=r"damaged.*remake"):
        gradient_files.load(path, mark, "remake")
    path.unlink()
    assert not gradient_files.is_valid(path, mark)
    with pytest.raises(SlugError, match=r"no gradients at.*remake"):
        gradient_files.load(path, mark, "remake")


@pytest.mark.parametrize(
    ("side", "method", "name"),
    [
        ("forget", "calc_grad", "forget_grads.pt"),
        ("train", "calc_grad", "train_grads.pt"),
        ("forget", "calc_grad_w", "forget_grads_w.pt"),
        ("train", "calc_grad_w", "train_grads.pt"),
        ("forget", "calc_grad_o", "forget_grads_o.pt"),
        ("train", "calc_grad_o", "train_grads.pt"),  # `_o` changes the forget loss only
        ("forget", "calc_importance", "forget_grads_importance.pt"),
    ],
)
def test_names_of_gradient_files(side, method, name):
    assert gradient_files.file_name(side, method) == name
