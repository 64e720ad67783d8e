"""CCUP against its formulas in numpy."""

import numpy as np
import pytest
import tiny
import torch
from plain_training import each, of_name, weights

from slug import methods
from slug.core.edit import kept
from slug.methods import _matrices, ccup

OWN = ["Alien.", "Alien", "a photo of Alien.", "a photo of a Alien.", "a picture of a Alien."]


def embedded(clip, texts):
    with torch.no_grad():
        return clip.encode_text(clip.tokenize(texts)).double().numpy()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_at_full_strength_no_picture_has_anything_in_common_with_the_name(tiny_clip, family):
    small = of_name(tiny.load(tiny_clip, family))
    clip, images = small.clip, torch.cat([small.material.forget.images, small.material.retain.images])
    before = clip.encode_image(images).double().numpy() @ embedded(clip, OWN).T
    with kept(clip, clip.parameters):
        next(ccup.candidates(clip, small.material, 1.0))
        cosines = clip.encode_image(images).double().detach().numpy() @ embedded(clip, OWN).T
    assert abs(before).min() > 1e-3 and abs(cosines).max() < 1e-5


def test_only_the_projection_changes_by_the_strength_and_each_candidate_starts_anew(rival):
    base = weights(rival.clip)["visual.proj"].double().numpy()
    u, _, _ = np.linalg.svd(embedded(rival.clip, OWN).T, full_matrices=False)
    found = each(rival, "ccup", 0.3)
    assert len(found) == methods.get("ccup").count and all(set(changed) == {"visual.proj"} for changed in found.values())
    assert np.allclose(found[1]["visual.proj"], base - 0.3 * base @ u @ u.T, atol=1e-6)


def test_with_retained_names_it_is_the_ridge_solution(rival):
    base = weights(rival.clip)["visual.proj"].double().numpy()
    kept_texts = [OWN[i].replace("Alien", n) for n in ("Ant", "Baby", "Bento Box") for i in range(5)]  # no caption says Owl
    t_f, t_r = embedded(rival.clip, OWN), embedded(rival.clip, kept_texts)
    found = each(rival, "ccup", 1.0)
    for number, ridge in enumerate(ccup.RIDGES, 2):
        r = t_r.T @ t_r / 15 + ridge * np.eye(base.shape[1])
        p = r @ np.linalg.inv(t_f.T @ t_f / 5 + r)
        assert np.allclose(found[number]["visual.proj"], base @ p.T, atol=1e-5), ridge


def test_names_are_kept_that_captions_say_and_else_the_captions(rival):
    assert _matrices.kept_names(rival.material) == ["Ant", "Baby", "Bento Box"]
    assert _matrices.kept_names(rival.material._replace(names=())) == rival.material.retain.captions
