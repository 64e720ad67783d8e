"""Work spread over processes, on this machine or on a cluster."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from slug.errors import SlugError, brief

LOCAL = "multiprocessing"
DISTRIBUTORS = {  # name: (joblib's backend, module that registers it, function there, packages to install)
    LOCAL: ("loky", "", "", ""),
    "ray": ("ray", "ray.util.joblib", "register_ray", "ray"),
    "pyspark": ("spark", "joblibspark", "register_spark", "pyspark joblibspark"),
}

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 0, distributor: str = LOCAL
) -> Generator[Result, None, None]:
    """Yield function(item) for all items, in their order. SlugError if the distributor is not installed or does not start.

    Args:
        workers: number of processes. With 0 or 1 on this machine, this process does everything.
        distributor: where the processes run: `multiprocessing` (this machine), or a `ray` or `pyspark` cluster through
            joblib, whose machines see the files at the same paths. Tried on one machine with ray 2.60, and with pyspark
            4.3 and joblibspark 0.6.
    """
    backend, module, register, package = DISTRIBUTORS[distributor]
    if module:
        try:
            getattr(importlib.import_module(module), register)()
        except ImportError as err:
            raise SlugError(f"distributor {distributor} is not installed ({err}); run: pip install {package}") from err
    elif workers <= 1:
        yield from map(function, items)
        return
    import joblib

    # Joblib replaces a process whose memory has grown, and says so; one that dies is an error of its own.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    # Joblib's cluster backends return lists; in waves, so that memory never holds the results of all of LAION.
    wave = 8 * max(1, workers) if module else max(1, len(items))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(joblib.parallel_config(backend=backend))
            how: dict[str, Any] = {"return_as": "list" if module else "generator"}
            pool = stack.enter_context(joblib.Parallel(n_jobs=max(1, workers), **how))
        except Exception as err:  # clusters raise many kinds
            raise SlugError(f"the processes of {distributor} did not start: {brief(err)}") from err
        for i in range(0, len(items), wave):
            yield from pool(joblib.delayed(function)(item) for item in items[i : i + wave])
