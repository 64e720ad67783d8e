"""Work spread over processes and clusters: results in order, failures in one line."""

import io
import sys
import types

import joblib
import pytest
from PIL import Image

from slug import pool
from slug.errors import SlugError


def test_one_process_works_item_by_item():
    done = []
    results = pool.spread(lambda item: done.append(item) or item, [1, 2, 3])
    assert next(results) == 1 and done == [1]


def test_processes_decode_by_workers_of_their_own():
    """Enough images for workers, within the processes that the runs of a study are spread over."""

    def count(colour):  # nested, so that it is sent by value: other processes cannot import this module
        import slug.torchvision_cpu  # noqa: F401  (before torchvision)

        from torchvision import transforms

        from slug.data.images import decode

        held = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(held, "PNG")
        return len(decode([held.getvalue()] * 300, transforms.PILToTensor(), workers=2)[1])

    assert list(pool.spread(count, ["red", "blue"], workers=2)) == [300, 300]


def in_place_of(monkeypatch, name, module, kind):
    """Replace the backend of a distributor, installed or not, by one of this kind."""
    backend, _, register, _ = pool.DISTRIBUTORS[name]
    registered = types.ModuleType(module)
    setattr(registered, register, lambda: joblib.register_parallel_backend(backend, kind))
    monkeypatch.setattr(joblib.parallel, "BACKENDS", dict(joblib.parallel.BACKENDS))
    for i in range(len(module.split("."))):
        parent = ".".join(module.split(".")[: i + 1])
        monkeypatch.setitem(sys.modules, parent, registered if parent == module else types.ModuleType(parent))


@pytest.mark.parametrize(("name", "module"), [("ray", "ray.util.joblib"), ("pyspark", "joblibspark")])
def test_results_of_a_cluster_come_in_order(monkeypatch, name, module):
    """Through joblib's registration of a backend, with one of threads in the cluster's place."""
    in_place_of(monkeypatch, name, module, type(joblib.parallel.BACKENDS["threading"]()))
    assert list(pool.spread(str, range(40), workers=2, distributor=name)) == [str(i) for i in range(40)]


def test_a_cluster_that_does_not_start_is_said_in_one_line(monkeypatch):
    class Down(joblib.parallel.ThreadingBackend):
        def configure(self, **_):
            raise Exception("The node timed out during startup")

    in_place_of(monkeypatch, "ray", "ray.util.joblib", Down)
    with pytest.raises(SlugError, match="processes of ray did not start: The node timed out"):
        list(pool.spread(str, range(4), workers=2, distributor="ray"))


def test_a_distributor_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(SlugError, match=r"distributor ray is not installed .* pip install ray"):
        list(pool.spread(str, [1], distributor="ray"))
