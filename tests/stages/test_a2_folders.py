"""a2_unlearn_slug.py on folders: list the deltas of an edited one, and write a delta as an adapter."""

import edits
import tiny

from slug.artifacts import deltas


def test_list_names_the_deltas_of_a_folder(tiny_clip, tmp_path, capsys):
    paths = [tmp_path / f"{name}.delta.safetensors" for name in "ab"]
    for layer, path in enumerate(paths):
        edits.make(tiny_clip, path, layer=layer)
    edited = deltas.apply(paths, tiny_clip / "open_clip", tmp_path / "edited")
    tiny.run("a2_unlearn_slug", "list", "--model-dir", edited)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [p.name for p in paths]


def test_adapter_writes_a_folder_and_says_its_ranks(tiny_clip, tmp_path, capsys):
    path = tmp_path / "a.delta.safetensors"
    edits.make(tiny_clip, path, "hugging_face", 0)
    tiny.run("a2_unlearn_slug", "adapter", "--delta", path, "--out", tmp_path / "adapter", "--residual", 0)
    assert (tmp_path / "adapter/adapter_config.json").is_file()
    assert "self_attn.k_proj rank 32, 0.0% left out" in capsys.readouterr().out


def test_adapter_refuses_a_folder_of_something_else_in_one_line(tiny_clip, tmp_path, monkeypatch, capfd):
    path, kept = tmp_path / "a.delta.safetensors", tmp_path / "mine" / "notes.txt"
    edits.make(tiny_clip, path, "hugging_face", 0)
    kept.parent.mkdir()
    kept.write_text("years of work")
    given = ["adapter", "--delta", path, "--out", kept.parent]
    assert "holds no adapter" in tiny.failure(monkeypatch, capfd, "a2_unlearn_slug", *given)
    assert kept.read_text() == "years of work"
