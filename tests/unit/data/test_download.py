"""Download from a web server on this machine that serves the embedded world, some of it badly."""

import signal

import img2dataset
import pyarrow.parquet as pq
import pytest
from webserver import fetched

from slug.data import download, sources
from slug.data.settings import Download
from slug.errors import SlugError

QUICK = Download(threads=16, timeout=4, retries=0)


@pytest.mark.usefixtures("img2dataset_here")
def test_a_second_run_fetches_nothing_again(served, web, tmp_path):
    first = download.fetch(served[0], tmp_path / "laion", QUICK)
    asked = web.asked.copy()
    assert download.fetch(served[0], tmp_path / "laion", QUICK) == first and web.asked == asked


@pytest.mark.usefixtures("img2dataset_here")
def test_a_shard_that_was_not_finished_is_fetched_again(served, web, tmp_path):
    first = download.fetch(served[0], tmp_path / "laion", QUICK)
    asked = web.asked.total()
    (tmp_path / "laion" / "00001_stats.json").unlink()  # as after a stop: the stats are written last
    (tmp_path / "laion" / "00001.tar").write_bytes(b"split")
    download.fetch(served[0], tmp_path / "laion", QUICK)
    assert web.asked.total() == asked + 15 and len(fetched(tmp_path / "laion")) >= first.pictures


@pytest.mark.usefixtures("img2dataset_here")
def test_no_picture_at_all_is_an_error_and_is_tried_again(served, web, tmp_path):
    answers, web.answers = web.answers, {}
    with pytest.raises(SlugError, match=r"none of 40 pictures could be fetched \(HTTP Error 404"):
        download.fetch(served[0], tmp_path / "laion", QUICK)
    web.answers = answers
    assert download.fetch(served[0], tmp_path / "laion", QUICK).pictures > 20


@pytest.mark.parametrize(("end", "seen"), [(SystemExit(0), KeyboardInterrupt), (ValueError("no\nway"), SlugError)])
def test_the_end_of_img2dataset_is_passed_on(served, tmp_path, monkeypatch, end, seen):
    """It answers Ctrl-C with exit code 0, and leaves its own handler behind."""

    def stopped(**_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise end

    monkeypatch.setattr(img2dataset, "download", stopped)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(seen) as caught:
        download.fetch(served[0], tmp_path / "laion", Download())
    assert signal.getsignal(signal.SIGINT) is before and "\n" not in str(caught.value)


def test_a_name_without_rows_is_counted_too(served, tmp_path):
    counts = download.named_rows(served[0], ["Alien", "Nobody"], tmp_path / "rows", limit=10**6)
    assert counts["Alien"] > 3 and counts["Nobody"] == 0


def test_metadata_files_that_are_known_are_not_searched_again(served, tmp_path, monkeypatch):
    counts = download.named_rows(served[0], ["Alien"], tmp_path / "rows", limit=10**6)
    (tmp_path / "rows" / "00001.parquet").unlink()
    read, find_rows = [], sources.find_rows
    monkeypatch.setattr(sources, "find_rows", lambda path, *a, **k: read.append(path.name) or find_rows(path, *a, **k))
    assert download.named_rows(served[0], ["Alien"], tmp_path / "rows", limit=10**6) == counts
    assert read == ["part-1.parquet"]


def test_rows_of_a_name_are_limited(served, tmp_path):
    assert download.named_rows(served[0], ["Alien"], tmp_path / "few", limit=2) == {"Alien": 2}
    assert sum(pq.read_metadata(p).num_rows for p in (tmp_path / "few").iterdir()) == 2


def test_names_without_any_row_are_told(served, tmp_path):
    how = Download(metadata_dir=str(served[0]))
    with pytest.raises(SlugError, match=r"no caption in .* names Nobody"):
        download.fetch_named(["Nobody"], tmp_path / "named", how)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def drop_column(path):
    pq.write_table(pq.read_table(path).drop_columns(["TEXT"]), path)


def remove_all(path):
    for file in path.parent.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(cut, "part-1.parquet is not LAION's"), (drop_column, "no column TEXT"), (remove_all, "holds no metadata")],
)
def test_metadata_that_cannot_be_used_is_named(served, spoil, said):
    spoil(served[0] / "part-1.parquet")
    with pytest.raises(SlugError, match=said):
        download.metadata_files(served[0])


@pytest.mark.parametrize("name", ["ray", "pyspark", "img2dataset"])
def test_a_package_that_is_not_installed_is_named(served, tmp_path, monkeypatch, name):
    """img2dataset itself would say nothing, and do nothing."""
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda package: None if package == name else package)
    with pytest.raises(SlugError, match=f"{name} is not installed"):
        download.fetch(served[0], tmp_path / "laion", Download(distributor="pyspark" if name == "pyspark" else "ray"))
