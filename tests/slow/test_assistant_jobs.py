"""c1_unlearn_vlm with --jobs: names in processes of their own."""

import pytest
import tiny
import tiny_llava as assistants

from slug import files


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tiny_llava, tmp_path):
    assistants.write_data(tmp_path)
    tiny.write_pairs(tmp_path / "Owl.tar", ["an owl", "the owl", "owl!", "my owl"])
    found = []
    for jobs in (1, 2):
        flags = [*assistants.model_flags(tiny_llava, tmp_path), "--result-dir", tmp_path / str(jobs), "--jobs", jobs]
        flags += [*assistants.forget_flags(tmp_path), "--celeb-name", "Frog", "Owl", "--fronts", 1]
        tiny.run("c1_unlearn_vlm", *flags)
        records = [files.read_json(tmp_path / str(jobs) / f"vlm/llava-{n}.json") for n in ("Frog", "Owl")]
        found.append([(r["name"], r["layer"], r["step"], r["n_candidates"]) for r in records])
    assert found[0] == found[1]
