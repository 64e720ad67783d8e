"""The site of README and docs/: its links."""

import importlib.util

import pytest
import tiny

from slug import files
from slug.errors import SlugError

build_site = tiny.script("tools/build_site")


def test_links_are_those_of_files_outside_code():
    text = """[a](one.md#part) ![b](pictures/two%20three.png "a title") [c](https://example.org) [d](#here) `[e](no.md)`
<img src="four.png"> [f](one.md)
```
[g](no.md)
```
"""
    assert build_site.links(text) == ["one.md", "pictures/two three.png", "four.png"]


def test_pages_are_those_that_links_reach_and_a_dead_link_is_named(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("[a](docs/a.md) ![](results/p.png) [out](../secret.md) [r](results/)")
    (tmp_path / "docs" / "a.md").write_text("[b](../results/README.md) [gone](nowhere.md)")
    (tmp_path / "results" / "README.md").write_text("[p](p.png)")
    (tmp_path / "results" / "p.png").write_bytes(b"")
    (tmp_path / "results" / "q.png").write_bytes(b"")
    found, wrong = build_site.pages(tmp_path)
    assert list(map(str, found)) == ["README.md", "docs/a.md", "results/README.md", "results/p.png"]
    assert len(wrong) == 2 and "docs/a.md links to nowhere.md" in wrong[1] and "README.md links to ../secret.md" in wrong[0]


def test_every_link_of_the_documents_leads_to_a_file(capsys):
    build_site.main(["--check"])
    assert "every link leads to a file" in capsys.readouterr().out


def test_a_dead_link_stops_the_build(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("[a](nowhere.md)")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    with pytest.raises(SlugError, match="1 links of the documents lead nowhere"):
        build_site.main([])


@pytest.mark.skipif(not importlib.util.find_spec("material"), reason="no MkDocs Material here; pip install -e '.[docs]'")
def test_the_site_is_built_strictly_and_asks_no_other_server(tmp_path):
    build_site.main(["--out", str(tmp_path / "site")])
    page = (tmp_path / "site" / "index.html").read_text()
    assert "fonts.googleapis" not in page and '<script src="http' not in page
