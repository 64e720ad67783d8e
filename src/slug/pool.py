"""Work dealt to processes, here or on a cluster."""

import contextlib
import importlib

import joblib

from slug.errors import SlugError, brief

LOCAL = "multiprocessing"


DISTRIBUTORS = {  # name: (joblib's backend, module that registers it, function there, package to install)
    LOCAL: ("loky", None, None, None),
    "ray": ("ray", "ray.util.joblib", "register_ray", "ray"),
    "pyspark": ("spark", "joblibspark", "register_spark", "pyspark joblibspark"),
}


def spread(function, items, *, workers=0, distributor=LOCAL):
    """Yield function(item) of every item, in the order of the items.

    Args:
        workers: processes; with 0 or 1 local ones everything is done in this process, one item after the other.
        distributor: where they are: `multiprocessing` (this machine), or a `ray` or `pyspark` cluster through joblib, whose
            machines see the files at the same paths. Tried on one machine with ray 2.60, and pyspark 4.3, joblibspark 0.6.
    Raises:
        SlugError: the distributor is not installed, or its cluster does not start.
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
    # Joblib's cluster backends return lists; a whole list of LAION's would be held in memory.
    wave = 8 * max(1, workers) if module else max(1, len(items))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(joblib.parallel_config(backend=backend))
            how = {"return_as": "list" if module else "generator"}
            pool = stack.enter_context(joblib.Parallel(n_jobs=max(1, workers), **how))
        except Exception as err:  # clusters raise what they like
            raise SlugError(f"the processes of {distributor} did not start: {brief(err)}") from err
        for i in range(0, len(items), wave):
            yield from pool(joblib.delayed(function)(item) for item in items[i : i + wave])
