"""Download from a web server on this machine that serves the embedded world, some of it badly."""

import signal
from pathlib import Path

import img2dataset
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
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


# ------------------------------------------------------------------------------------------- metadata of other releases


ROWS = {"URL": ["http://a/1.jpg", "HTTPS://b/2.jpg", "file:///etc/3.jpg", None, "ftp://c/4.jpg", " file:///5.jpg"]}
ROWS |= {"TEXT": ["alien", "alien", "alien", "alien", "alien", "alien"], "NSFW": ["?"] * 6}


def given(tmp_path, monkeypatch, *tables):
    """What img2dataset is given for metadata files of these columns: (the rows of its files, its settings)."""
    for i, columns in enumerate(tables):
        tiny.write_file(tmp_path / "metadata" / f"{i}.parquet", b"")
        pq.write_table(pa.table(columns), tmp_path / "metadata" / f"{i}.parquet")
    seen = {}
    monkeypatch.setattr(img2dataset, "download", lambda **settings: seen.update(settings))
    with pytest.raises(SlugError, match="are not finished"):
        download.fetch(tmp_path / "metadata", tmp_path / "laion", Download())
    rows = [pq.read_table(p).to_pylist() for p in sorted(Path(seen["url_list"]).glob("*.parquet"))]
    return [r for part in rows for r in part], seen


def test_only_addresses_of_the_web_reach_img2dataset(tmp_path, monkeypatch, capsys):
    rows, _ = given(tmp_path, monkeypatch, ROWS)
    assert [r["URL"] for r in rows] == ["http://a/1.jpg", "HTTPS://b/2.jpg"]
    assert "4 of 6 rows are left out: their address is neither http nor https" in capsys.readouterr().out


def test_metadata_of_the_web_alone_is_given_as_it_is(tmp_path, monkeypatch):
    web = {k: v[:2] for k, v in ROWS.items()}
    _, seen = given(tmp_path, monkeypatch, web, web)
    assert seen["url_list"] == str(tmp_path / "metadata") and seen["save_additional_columns"] == ["NSFW"]


@pytest.mark.parametrize("caption", ["caption", "text", "TEXT"])
@pytest.mark.parametrize("mixed", [True, False])
def test_columns_of_later_releases_are_known(tmp_path, monkeypatch, caption, mixed):
    later = {"url": ROWS["URL"][:2], caption: ["later"] * 2, "similarity": [0.3] * 2}
    rows, seen = given(tmp_path, monkeypatch, *([{k: v[:2] for k, v in ROWS.items()}] if mixed else []), later)
    assert len(rows) == (4 if mixed else 2) and rows[-1][seen["caption_col"]] == "later"
    assert rows[-1][seen["url_col"]] == "HTTPS://b/2.jpg" and seen["save_additional_columns"] == (
        [] if mixed else ["similarity"]
    )


def test_addresses_as_categories_or_bytes_are_read(tmp_path, monkeypatch):
    table = {"URL": pa.array(ROWS["URL"]).dictionary_encode(), "TEXT": [t.encode() for t in ROWS["TEXT"]]}
    rows, _ = given(tmp_path, monkeypatch, table)
    assert rows == [{"URL": u, "TEXT": "alien"} for u in ROWS["URL"][:2]]


def test_metadata_without_any_address_of_the_web_is_refused(tmp_path):
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table({k: v[2:] for k, v in ROWS.items()}), tmp_path / "metadata" / "a.parquet")
    with pytest.raises(SlugError, match=r"none of the 4 rows .* http or https"):
        download.fetch(tmp_path / "metadata", tmp_path / "laion", Download())


def test_rows_of_a_name_are_found_in_metadata_of_any_release(tmp_path):
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table({"url": ["http://a/1.jpg"], "caption": ["an alien"]}), tmp_path / "metadata" / "a.parquet")
    assert download.named_rows(tmp_path / "metadata", ["Alien"], tmp_path / "rows") == {"Alien": 1}
    assert pq.read_table(tmp_path / "rows").to_pylist() == [
        {"URL": "http://a/1.jpg", "TEXT": "an alien", "names": ["Alien"]}
    ]
