"""A web server on this machine that serves the embedded world, some of it badly, and LAION's metadata of it."""

import http.server
import importlib
import json
import tarfile
import threading
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from slug.data import curation
from slug.data.pairs import TarMembers

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


def write_metadata(path, web, rows):
    """LAION's metadata of [(address, caption)]."""
    table = [
        {"URL": web.url(a), "TEXT": c, "NSFW": "UNLIKELY", "similarity": 0.3, "LICENSE": "?", "SAMPLE_ID": i}
        for i, (a, c) in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table), path)


def serve_world(web, world, folder):
    """Put 40 pairs of the embedded world on the web and write their metadata to two files in `folder`.

    Returns {address: caption} of the pictures that can be fetched and decoded.
    """
    folder.mkdir()
    rows, good = [], {}
    shard = world / "laion/laion400m/00001"
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
    write_metadata(folder / "part-0.parquet", web, rows[:25])
    write_metadata(folder / "part-1.parquet", web, rows[25:])
    assert len(good) > 20
    return good


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


class NoLogger:
    """img2dataset's logger process, which logs nothing."""

    def __init__(self, *_):
        pass

    start = join = lambda self: None


def here(_processes, downloader, reader, *_):
    """img2dataset's distributor, in this process."""
    for shard in reader:
        downloader(shard)


def run_img2dataset_here(monkeypatch):
    """Let img2dataset do without its own processes, whose start takes longer than the pictures."""
    module = importlib.import_module("img2dataset.main")  # as an attribute of the package it is the function main
    monkeypatch.setattr(module, "LoggerProcess", NoLogger)
    monkeypatch.setattr(module, "multiprocessing_distributor", here)
