"""Download as a user runs it, from a web server on this machine; curation reads the shards."""

import img2dataset
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from webserver import fetched

from slug.data import download
from slug.data.names import Matcher
from slug.data.pairs import read_tar
from slug.errors import SlugError

FLAGS = ["--processes", 1, "--threads", 16, "--timeout", 4, "--retries", 1]


def places(folder):
    return ["--tar-dir", folder / "tars", "--image-dir", folder / "pictures", "--result-dir", folder / "results"]


def test_img2dataset_makes_shards_that_curation_reads(served, web, tmp_path, capfd):
    """The one run with img2dataset's own processes."""
    folder, good = served
    laion = tmp_path / "laion"
    tiny.run("a0_download", "--metadata-dir", folder, "--laion-dir", laion, *FLAGS)
    ends = (".tar", ".parquet", "_stats.json")
    assert {p.name for p in laion.iterdir()} == {f"0000{n}{end}" for n in (0, 1) for end in ends}
    got = fetched(laion)
    broken = {a for a in got if a not in good}  # OpenCV takes the first third of a JPEG for a picture
    assert {a: c for a, c in got.items() if a in good} == good and all(int(a[1:-4]) % 10 == 7 for a in broken)
    assert f"{len(got)} of 40 pictures in 2 shards" in capfd.readouterr().out
    assert max(n for a, n in web.asked.items() if a in good) == 2  # one that failed at first was asked again
    tiny.run("a0_create_tar", "--name", "Alien", "--laion-dir", laion, *places(tmp_path))
    captions = [c for _, _, c in read_tar(tmp_path / "tars" / "Alien.tar")]
    assert sorted(captions) == sorted(c for c in got.values() if Matcher(["Alien"]).find(c)) and captions


@pytest.fixture
def named(served, web, tmp_path, img2dataset_here, capsys):
    """Only the rows that name Alien, fetched and curated: (the flags, what the stage said)."""
    more = ["--download", "--metadata-dir", served[0], "--named-dir", tmp_path / "named", *places(tmp_path), *FLAGS]
    tiny.run("a0_create_tar", "--name", "Alien", *more)
    return ["--name", "Alien", *more], capsys.readouterr().out


def test_only_rows_with_the_name_are_fetched(named, served, web):
    paths = sorted(served[0].glob("*.parquet"))
    rows = pa.concat_tables(pq.read_table(p, columns=["URL", "TEXT"]) for p in paths).to_pylist()
    wanted = {"/" + r["URL"].rpartition("/")[2] for r in rows if Matcher(["Alien"]).find(r["TEXT"])}
    assert set(web.asked) == wanted
    assert f"rows tried: Alien: {len(wanted)}" in named[1]


def test_rows_with_the_name_are_curated(named, served, tmp_path):
    good = served[1]
    wanted = [c for c in good.values() if Matcher(["Alien"]).find(c)]
    assert 1 < len(wanted) < len(good) / 2
    assert sorted(c for _, _, c in read_tar(tmp_path / "tars" / "Alien.tar")) == sorted(wanted)


def test_a_second_run_knows_its_rows_and_shards(named, web):
    asked = web.asked.copy()
    tiny.run("a0_create_tar", "--force", *named[0])
    assert web.asked == asked


def test_metadata_that_cannot_be_used_ends_with_one_line(served, tmp_path, monkeypatch, capfd):
    for path in served[0].iterdir():
        path.unlink()
    flags = ["--metadata-dir", served[0], "--laion-dir", tmp_path / "laion"]
    assert "holds no metadata" in tiny.failure(monkeypatch, capfd, "a0_download", *flags)
    assert not (tmp_path / "laion").exists()


def test_the_papers_settings_and_the_distributor_reach_img2dataset(served, tmp_path, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: True)
    seen = {}
    monkeypatch.setattr(img2dataset, "download", lambda **settings: seen.update(settings))
    with pytest.raises(SlugError, match=r"2 of 2 shards .* are not finished"):
        tiny.run("a0_download", "--metadata-dir", served[0], "--laion-dir", tmp_path / "l", "--distributor", "ray")
    wanted = {"input_format": "parquet", "url_col": "URL", "caption_col": "TEXT", "output_format": "webdataset"}
    wanted |= {"processes_count": 16, "thread_count": 128, "image_size": 256, "distributor": "ray"}
    wanted |= {"save_additional_columns": ["NSFW", "similarity", "LICENSE"]}
    assert {k: seen[k] for k in wanted} == wanted
