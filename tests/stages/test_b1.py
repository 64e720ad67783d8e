"""b1_compute_grad.py."""

import tiny
import torch

from slug import models


def test_the_text_towers_gradients_are_those_of_a1(canvas_run, tmp_path):
    clip = models.load(clip_model_id=str(canvas_run.sd / "hugging_face"))
    data = ["--tar-dir", canvas_run.tars, "--train-data", canvas_run.train, "--batch-size", 4]
    given = ["--celeb-name", "Noto", "palm_tree", *data, *canvas_run.clip, "--result-dir", tmp_path, "--device", "cpu"]
    tiny.run("a1_compute_grad", *given, "--workers", 0)
    for side in ("forget_grads", "train_grads"):
        path = f"grads/Noto_{clip.tag}/{side}.pt"
        text, both = (torch.load(r / path, weights_only=True) for r in (canvas_run.results, tmp_path))
        assert set(text) == {n for n in both if clip.tower(n) == "language"}
        assert all(torch.allclose(g, both[n], atol=1e-7) for n, g in text.items())


def test_a_method_in_rounds_names_its_variants_gradients(canvas_run, tmp_path):
    run = canvas_run.another(tmp_path)
    run.b1("Noto", "palm_tree", method="slug_w_rounds")
    assert len(list(tmp_path.glob("grads/Noto_*/forget_grads_w.pt"))) == 1
