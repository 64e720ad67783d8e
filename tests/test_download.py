"""Download: a web server on this machine serves the embedded world, some of it badly; curation reads the shards."""

import http.server
import importlib
import json
import signal
import tarfile
import threading
import time
from collections import Counter

import img2dataset
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from test_house import shell

from slug.data import curation, download, sources
from slug.data.names import Matcher
from slug.data.pairs import TarMembers, read_tar
from slug.data.settings import Download
from slug.errors import SlugError

SLOW, FIRST_FAILS, NEVER = "slow", "fails once", "never answers"


class Web:
    """A server of pictures by name, and how often each was asked for."""

    def __init__(self):
        self.answers, self.asked = {}, Counter()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.asked[self.path] += 1
                content, manner = web.answers.get(self.path, (None, ""))
                time.sleep({SLOW: 0.3, NEVER: 5}.get(manner, 0))
                status = 404 if content is None else 503 if manner == FIRST_FAILS and web.asked[self.path] == 1 else 200
                body = content if status == 200 else b"no such picture"
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    pass  # the other side had waited long enough

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


@pytest.fixture
def in_process(monkeypatch):
    """img2dataset without its own processes, whose start takes longer than the pictures."""

    class NoLogger:
        def __init__(self, *_):
            pass

        start = join = lambda self: None

    def here(_processes, downloader, reader, *_):
        for shard in reader:
            downloader(shard)

    module = importlib.import_module("img2dataset.main")  # as an attribute of the package it is the function main
    monkeypatch.setattr(module, "LoggerProcess", NoLogger)
    monkeypatch.setattr(module, "multiprocessing_distributor", here)


def write_metadata(path, web, rows):
    """LAION's metadata of [(address, caption)]."""
    table = [
        {"URL": web.url(a), "TEXT": c, "NSFW": "UNLIKELY", "similarity": 0.3, "LICENSE": "?", "SAMPLE_ID": i}
        for i, (a, c) in enumerate(rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), path)


@pytest.fixture
def metadata(web, tiny_world, tmp_path):
    """40 pairs of the embedded world on the web and its metadata in two files: (folder, {address: caption} of good ones)."""
    rows, good = [], {}
    shard = tiny_world / "laion/laion400m/00001"
    captions = pq.read_table(shard.with_suffix(".parquet"), columns=["key", "caption", "status"]).to_pylist()
    with TarMembers(shard.with_suffix(".tar")) as tar:
        for i, row in enumerate(captions[:40]):
            address = f"/{row['key']}.jpg"
            content = tar.get(f"{row['key']}.jpg")
            manner = {4: SLOW, 5: FIRST_FAILS, 6: NEVER}.get(i % 10, "")
            if content and i % 10 == 7:
                content = content[: len(content) // 3]
            elif content and i % 10 == 8:
                content = b"<html>moved</html>"
            web.answers[address] = (content, manner)
            rows.append((address, row["caption"]))
            if content and manner != NEVER and i % 10 != 8 and curation.usable(content):
                good[address] = row["caption"]
    write_metadata(tmp_path / "metadata" / "part-0.parquet", web, rows[:25])
    write_metadata(tmp_path / "metadata" / "part-1.parquet", web, rows[25:])
    assert len(good) > 20
    return tmp_path / "metadata", good


FLAGS = ["--processes", 1, "--threads", 16, "--timeout", 4, "--retries", 1]


def fetched(folder):
    """{address: caption} of the pictures in a folder of shards."""
    out = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    row = json.loads(tar.extractfile(member).read())
                    out["/" + row["url"].rpartition("/")[2]] = row["caption"]
    return out


def test_img2dataset_makes_shards_that_curation_reads(metadata, web, tmp_path, capfd):
    """The one run with img2dataset's own processes."""
    folder, good = metadata
    laion = tmp_path / "laion"
    tiny.run("a0_download", "--metadata-dir", folder, "--laion-dir", laion, *FLAGS)
    assert {p.name for p in laion.iterdir()} == {
        f"0000{n}{end}" for n in (0, 1) for end in (".tar", ".parquet", "_stats.json")
    }
    got = fetched(laion)
    broken = {a for a in got if a not in good}  # OpenCV takes the first third of a JPEG for a picture
    assert {a: c for a, c in got.items() if a in good} == good and all(int(a[1:-4]) % 10 == 7 for a in broken)
    assert f"{len(got)} of 40 pictures in 2 shards" in capfd.readouterr().out
    assert max(n for a, n in web.asked.items() if a in good) == 2  # one that failed at first was asked again
    tars = ["--tar-dir", tmp_path / "tars", "--image-dir", tmp_path / "pictures", "--result-dir", tmp_path / "results"]
    tiny.run("a0_create_tar", "--name", "Alien", "--laion-dir", laion, *tars)
    captions = [c for _, _, c in read_tar(tmp_path / "tars" / "Alien.tar")]
    assert sorted(captions) == sorted(c for c in got.values() if Matcher(["Alien"]).find(c)) and captions


def test_a_second_run_fetches_only_what_was_not_finished(metadata, web, in_process, tmp_path):
    folder, _ = metadata
    how = Download(threads=16, timeout=4, retries=0)
    first = download.fetch(folder, tmp_path / "laion", how)
    asked = web.asked.copy()
    assert download.fetch(folder, tmp_path / "laion", how) == first and web.asked == asked
    (tmp_path / "laion" / "00001_stats.json").unlink()  # as where a run was stopped: the stats are written last
    (tmp_path / "laion" / "00001.tar").write_bytes(b"split")
    download.fetch(folder, tmp_path / "laion", how)
    assert web.asked.total() == asked.total() + 15
    assert len(fetched(tmp_path / "laion")) >= first.pictures


def test_named_rows_only_are_fetched_and_curated(metadata, web, in_process, tmp_path, capfd):
    folder, good = metadata
    named = {a for a, c in good.items() if Matcher(["Alien"]).find(c)}
    assert 1 < len(named) < len(good) / 2
    tars = ["--tar-dir", tmp_path / "tars", "--image-dir", tmp_path / "pictures", "--result-dir", tmp_path / "results"]
    flags = ["--name", "Alien", "--download", "--metadata-dir", folder, "--named-dir", tmp_path / "named", *tars, *FLAGS]
    tiny.run("a0_create_tar", *flags)
    rows = pa.concat_tables(pq.read_table(p, columns=["URL", "TEXT"]) for p in sorted(folder.glob("*.parquet"))).to_pylist()
    wanted = {"/" + r["URL"].rpartition("/")[2] for r in rows if Matcher(["Alien"]).find(r["TEXT"])}
    assert set(web.asked) == wanted
    captions = [c for _, _, c in read_tar(tmp_path / "tars" / "Alien.tar")]
    assert sorted(captions) == sorted(good[a] for a in named)
    assert f"rows tried: Alien: {len(wanted)}" in capfd.readouterr().out
    asked = web.asked.copy()
    tiny.run("a0_create_tar", "--force", *flags)  # again: the rows are known, the shards are there
    assert web.asked == asked


def test_rows_are_limited_by_name_and_known_files_not_read_again(metadata, tmp_path, monkeypatch):
    folder, _ = metadata
    counts = download.named_rows(folder, ["Alien", "Nobody"], tmp_path / "rows", limit=10**6)
    assert counts["Alien"] > 3 and counts["Nobody"] == 0
    (tmp_path / "rows" / "00001.parquet").unlink()
    read = []
    find_rows = sources.find_rows
    monkeypatch.setattr(sources, "find_rows", lambda path, *a, **k: read.append(path.name) or find_rows(path, *a, **k))
    assert download.named_rows(folder, ["Alien", "Nobody"], tmp_path / "rows", limit=10**6) == counts
    assert read == ["part-1.parquet"]
    assert download.named_rows(folder, ["Alien"], tmp_path / "few", limit=2) == {"Alien": 2}
    assert sum(pq.read_metadata(p).num_rows for p in (tmp_path / "few").iterdir()) == 2


def spoil(folder, kind):
    path = folder / "part-1.parquet"
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "column":
        pq.write_table(pq.read_table(path).drop_columns(["TEXT"]), path)
    elif kind == "empty":
        for p in folder.iterdir():
            p.unlink()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("cut", "part-1.parquet is not LAION's"), ("column", "no column TEXT"), ("empty", "holds no metadata")],
)
def test_metadata_that_cannot_be_used(metadata, tmp_path, monkeypatch, capfd, kind, said):
    folder, _ = metadata
    spoil(folder, kind)
    flags = ["--metadata-dir", folder, "--laion-dir", tmp_path / "laion"]
    assert said in tiny.failure(monkeypatch, capfd, "a0_download", *flags)
    assert not (tmp_path / "laion").exists()


def test_a_distributor_that_is_not_installed_is_named(metadata, tmp_path, monkeypatch, capfd):
    flags = ["--metadata-dir", metadata[0], "--laion-dir", tmp_path / "laion"]
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    # img2dataset itself would say nothing, and do nothing.
    for name in ("ray", "pyspark"):
        line = tiny.failure(monkeypatch, capfd, "a0_download", *flags, "--distributor", name)
        assert f"distributor {name} is not installed" in line


def test_settings_reach_img2dataset(metadata, tmp_path, monkeypatch):
    """The paper's settings by default (PAPER.md, section 3), and the distributor as given."""
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: True)
    seen = {}
    monkeypatch.setattr(img2dataset, "download", lambda **settings: seen.update(settings))
    with pytest.raises(SlugError, match=r"2 of 2 shards .* are not finished"):
        tiny.run("a0_download", "--metadata-dir", metadata[0], "--laion-dir", tmp_path / "l", "--distributor", "ray")
    wanted = {"input_format": "parquet", "url_col": "URL", "caption_col": "TEXT", "output_format": "webdataset"}
    wanted |= {"processes_count": 16, "thread_count": 128, "image_size": 256, "distributor": "ray"}
    wanted |= {"save_additional_columns": ["NSFW", "similarity", "LICENSE"]}
    assert {k: seen[k] for k in wanted} == wanted


@pytest.mark.parametrize(("end", "seen"), [(SystemExit(0), KeyboardInterrupt), (ValueError("no\nway"), SlugError)])
def test_how_img2dataset_ends_is_how_the_stage_ends(metadata, tmp_path, monkeypatch, end, seen):
    """It answers Ctrl-C with exit code 0, and leaves its own handler behind."""

    def stopped(**_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise end

    monkeypatch.setattr(img2dataset, "download", stopped)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(seen) as caught:
        download.fetch(metadata[0], tmp_path / "laion", Download())
    assert signal.getsignal(signal.SIGINT) is before and "\n" not in str(caught.value)


def test_every_setting_of_the_script_reaches_the_stage():
    values = {
        "METADATA_DIR": "/m",
        "LAION_DIR": "/l",
        "DISTRIBUTOR": "pyspark",
        "PROCESSES": 3,
        "THREADS": 5,
        "IMAGE_SIZE": 64,
    }
    values |= {"RETRIES": 7, "TIMEOUT": 9}
    done = shell(tiny.ROOT / "scripts/download_laion400m.sh", "--dry-run", "--more", **values)
    for variable, value in values.items():
        assert f"--{variable.lower().replace('_', '-')} {value} " in done.stdout
    assert "# missing: /m" in done.stdout and done.stdout.rstrip().endswith("--more")


def test_nothing_to_be_had_is_an_error_and_is_tried_again(metadata, web, in_process, tmp_path, monkeypatch, capfd):
    answers, web.answers = web.answers, {}
    flags = ["--metadata-dir", metadata[0], "--laion-dir", tmp_path / "laion", *FLAGS, "--retries", 0]
    assert "none of 40 pictures could be fetched (HTTP Error 404" in tiny.failure(monkeypatch, capfd, "a0_download", *flags)
    web.answers = answers
    tiny.run("a0_download", *flags)
    assert len(fetched(tmp_path / "laion")) > 20
