"""No test uses the network, or a display."""

import functools
import os
import socket

import pytest

# Before anything imports them; stages and processes that tests run inherit it.
os.environ.update(HF_HUB_OFFLINE="1", NO_ALBUMENTATIONS_UPDATE="1", MPLBACKEND="Agg")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"  # a Unix socket's address is a path
        assert host in ("localhost", "127.0.0.1", "::1"), f"a test tried to reach {host}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def tiny_build():
    """build_world.build for a world of 4 identities, 4 wide objects and 4 other objects."""
    import tiny  # here: the environment must be set before

    return functools.partial(tiny.build_world.build, limit=tiny.LIMIT, counts=tiny.COUNTS)


@pytest.fixture(scope="session")
def tiny_world(tiny_build, tmp_path_factory):
    """The folder of a tiny world. Only for reading: all tests share it."""
    out = tmp_path_factory.mktemp("world") / "demo"
    tiny_build(out)
    return out


@pytest.fixture(scope="session")
def named_world(tiny_world, tmp_path_factory):
    """The tiny world, two of whose objects are called as classes of ImageNet are. Only for reading."""
    import tiny

    out = tmp_path_factory.mktemp("named") / "world"
    tiny.write_named_world(out, tiny_world)
    return out


@pytest.fixture(scope="session")
def standin(named_world, tmp_path_factory):
    """The data folder of a repository with stand-ins of the downloads, unpacked. Only for reading."""
    import tiny

    return tiny.write_standin(tmp_path_factory.mktemp("standin") / "clone", named_world)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """Folder of an untrained CLIP: open_clip/ and, the same weights, hugging_face/. Only for reading."""
    import tiny

    folder = tmp_path_factory.mktemp("tiny-clip")
    tiny.write_random_clip(folder)
    return folder


@pytest.fixture(params=["open_clip", "hugging_face"])
def clip(request, tiny_clip):
    """models.Clip of tiny_clip, of either family."""
    import tiny

    return tiny.load(tiny_clip, request.param)


@pytest.fixture(scope="session")
def taught_clip(tmp_path_factory):
    """As tiny_clip, in fp16, after some training on the tiny world's evaluation: it knows most pictures."""
    import tiny

    folder = tmp_path_factory.mktemp("taught-clip")
    tiny.write_taught_clip(folder)
    return folder


@pytest.fixture
def web(monkeypatch):
    """A webserver.Web."""
    import webserver

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    web = webserver.Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


@pytest.fixture
def served(web, tiny_world, tmp_path):
    """Pairs of the tiny world on the web: (folder of their metadata, {address: caption} of those that can be fetched)."""
    import webserver

    return tmp_path / "metadata", webserver.serve_world(web, tiny_world, tmp_path / "metadata")


@pytest.fixture
def img2dataset_here(monkeypatch):
    """img2dataset without processes of its own."""
    import webserver

    webserver.run_img2dataset_here(monkeypatch)


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_clip, tmp_path_factory):
    """Folder of an untrained pipeline: pipeline/ and its CLIP, hugging_face/. Only for reading."""
    import tiny

    folder = tmp_path_factory.mktemp("tiny-pipeline")
    (folder / "hugging_face").symlink_to(tiny_clip / "hugging_face")
    tiny.write_pipeline(folder / "pipeline", tiny_clip / "hugging_face")
    return folder


@pytest.fixture(scope="session")
def tiny_xl(tiny_clip, tmp_path_factory):
    """Folder of an untrained SDXL: pipeline/, and the CLIPs of its text encoders, first/ and second/. Only for reading."""
    import tiny

    folder = tmp_path_factory.mktemp("tiny-xl")
    tiny.write_random_clip(folder / "other", seed=1)
    for name, source in (("first", tiny_clip), ("second", folder / "other")):
        (folder / name).symlink_to(source / "hugging_face")
    tiny.write_pipeline_xl(folder / "pipeline", folder / "first", folder / "second")
    return folder


@pytest.fixture(scope="session")
def assistant_run(tiny_llava, tmp_path_factory):
    """A finished run of both assistant stages for Frog: data, results/, published/, README.md. Only for reading."""
    import tiny_llava as assistants

    work = tmp_path_factory.mktemp("assistant-run")
    assistants.write_data(work)
    assistants.forget(tiny_llava, work)
    (work / "README.md").write_text("<!-- vlm -->\n<!-- /vlm -->\n")
    published = ["--out", work / "published" / "vlm", "--readme", work / "README.md"]
    assistants.evaluate(tiny_llava, work, "--utility", work / "MME", "--factors", 0.5, 8, *published)
    return work


@pytest.fixture(scope="session")
def tiny_llava(tiny_clip, tmp_path_factory):
    """Folder of an untrained LLaVA, its CLIP and questions (tiny_llava.write). Only for reading."""
    import tiny_llava

    folder = tmp_path_factory.mktemp("tiny-llava")
    tiny_llava.write(folder, tiny_clip / "hugging_face")
    return folder


@pytest.fixture(scope="session")
def tiny_canvas(tiny_pipeline, tmp_path_factory):
    """As tiny_pipeline, with classifiers/. Only for reading."""
    import tiny_canvas

    folder = tmp_path_factory.mktemp("tiny-canvas")
    for part in ("pipeline", "hugging_face"):
        (folder / part).symlink_to(tiny_pipeline / part)
    tiny_canvas.write_classifiers(folder)
    return folder
