"""The benchmark: which runs its frozen protocol asks for, what came out of them, and what models say that never saw a name.

The protocol is a JSON file (data/emoji/protocol.json). Its hash goes into every record, and a record with another hash is
counted and left out. Each run has a folder below the result folder, named after its model, splits and rule.
"""

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slug import cli, files, methods, schema, system
from slug.core import selection
from slug.data.names import plain_name, read_aliases
from slug.errors import SlugError
from slug.evaluation import outcome
from slug.experiments.setup import World
from slug.settings import Benchmark, Compare, Data, Forget, Gradients, Model

ENCODERS = ("vision", "language")
PARTS = ("names", "models", "gold", "runs", "rule", "methods", "settings")  # that a protocol must have
FIELDS = {"folder": str, "model": int, "splits": str, "names": list, "methods": list}  # of a run
TRAINING_BATCH = 32  # pairs, of the baselines
REMEDY = "take it from the repository (data/emoji/protocol.json)"


@dataclass(frozen=True)
class Frozen:
    """A protocol as its file says it.

    Attributes:
        path, hash: of the file.
        said: its contents.
    """

    path: str
    hash: str
    said: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"v{self.said['version']}-{self.hash[:8]}"

    def names(self, wanted: Sequence[str]) -> list[str]:
        """The names of lists such as `test`, as flags take them."""
        found = itertools.chain(*(self.said["names"][which] for which in wanted))
        return [name.replace(" ", "_") for name in dict.fromkeys(found)]

    def draft(self, quick: bool) -> str:
        """Why these runs have to wait; "" if they have not."""
        wait = not quick and not self.said["frozen"]
        return f"the rules in {self.path} are a draft, and test names wait until they are frozen; give --quick" * wait

    def methods(self, wanted: Sequence[str]) -> list[str]:
        """The methods of the groups of a run, in the registry's order."""
        asked = set(itertools.chain(*(self.said["methods"][group] for group in wanted)))
        return [m for m in methods.names(methods.CLIP) if m in asked]

    def runs(self, quick: bool) -> list[dict[str, Any]]:
        """The runs in their order; `quick` for the one that shows that everything works."""
        return [self.said["quick"]] if quick else list(self.said["runs"])


def read(path: str) -> Frozen:
    """The protocol of a file. SlugError where it is missing or lacks a part."""
    file = files.existing(path, "frozen protocol", REMEDY)
    said = files.read_object(file)
    lacks = next((p for p in ("version", "frozen", "quick", *PARTS) if p not in said), None)
    if lacks:
        raise SlugError(f"{file} has no {lacks!r}; {REMEDY}")
    for run in [said["quick"], *said["runs"]]:
        wrong = next((f for f, kind in FIELDS.items() if not isinstance(run.get(f), kind)), None)
        if wrong:
            raise SlugError(f"a run of {file} does not say its {wrong}; {REMEDY}")
    return Frozen(path, files.file_hash(file), said)


# ----------------------------------------------------------------------------------------------------------------- plan


def plan(settings: Benchmark) -> Iterator[str]:
    """Comments, of a draft and of all names, then the command lines of all runs, each of which keeps what is valid; a
    comment for what cannot run.

    SLUG is searched in each encoder by itself: the better of both is what a search of both finds.
    """
    frozen = read(settings.frozen)
    folders = {m["seed"]: m for m in frozen.said["models"]}
    lists = dict.fromkeys(which for run in frozen.runs(settings.quick) for which in run["names"])
    if frozen.draft(settings.quick):
        yield f"# draft: {frozen.draft(settings.quick)}"
    yield f"# names: {' '.join(frozen.names(list(lists)))}"
    for run in frozen.runs(settings.quick):
        model = folders[run["model"]]
        if not files.resolve(model["folder"]).is_dir():
            yield f"# left out: {run['folder']}; {model['folder']} is missing, made by: {model['command']}"
            continue
        yield from _run(settings, frozen, run, model["folder"])


def _data(settings: Benchmark, names: tuple[str, ...], *, swap_splits: bool = False) -> Data:
    """The data of some names, all pictures of each task."""
    return Data(
        celeb_name=names,
        tar_dir=settings.tar_dir,
        train_data=settings.train_data,
        val_data=settings.val_data,
        imagenet_val=settings.imagenet_val,
        imagenet_share=1.0,
        swap_splits=swap_splits,
    )


def _run(settings: Benchmark, frozen: Frozen, run: Mapping[str, Any], folder: str) -> Iterator[str]:
    root, names = f"{settings.run.result_dir}/{run['folder']}", tuple(frozen.names(run["names"]))
    asked = [methods.get(m) for m in frozen.methods(run["methods"])]
    model = {"model": f"local-dir:{files.resolve(folder)}", "pretrained": ""}
    rule, data = frozen.said["rule"] | run.get("rule", {}), _data(settings, names, swap_splits=run["splits"] == "exchanged")
    given = {**cli.values(settings.run, data), **model, "batch_size": Model().batch_size, "frozen": settings.frozen, **rule}
    kinds = tuple(dict.fromkeys(v.gradient for m in asked for v in (methods.PLAIN, *m.gradients)))
    yield cli.command("src/clip/a1_compute_grad.py", Gradients, given | {"result_dir": root, "unlearn_method": kinds})
    for method in asked:
        places = [f"{method.name}-{e}" for e in ENCODERS] if method.searched else [method.name]
        for place in places:
            here = f"{root}/{place}"
            yield f"mkdir -p {shlex.quote(here)} && ln -sfn ../grads {shlex.quote(here)}/grads"
            how = given | {"result_dir": here}
            if method.searched:
                how |= {"unlearn_method": method.name, "encoder": place.rpartition("-")[2]}
                yield cli.command("src/clip/a2_unlearn_slug.py", Forget, how)
            else:
                how |= {"unlearn_method": (method.name,), **frozen.said["settings"].get(method.name, {})}
                how |= {"batch_size": TRAINING_BATCH}
                yield cli.command("src/clip/a3_unlearn_compare.py", Compare, how)


# -------------------------------------------------------------------------------------------------------------- records


def records(settings: Benchmark) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(the records of all runs with what tells them apart, {why: how many files were left out})."""
    frozen, root, found = read(settings.frozen), files.resolve(settings.run.result_dir), []
    left_out = {"of other frozen rules": 0, "no record": 0}
    for run in frozen.runs(settings.quick):
        for path in sorted((root / run["folder"]).glob("*/clip/*.json")):
            try:
                record = files.read_object(path)
                about = {"frozen": record["frozen"], "method": record["method"], "splits": record["splits"]}
            except (SlugError, KeyError):
                left_out["no record"] += 1
                continue
            if about["frozen"] != frozen.hash:
                left_out["of other frozen rules"] += 1
                continue
            tower = path.parent.parent.name.removeprefix(f"{record['method']}-") if schema.is_slug(record["method"]) else ""
            about = {"run": run["folder"], "model_seed": run["model"], "split_half": run["splits"], "tower": tower}
            found.append(record | about)
    return [*found, *_of_both(found)], {why: n for why, n in left_out.items() if n}


def _of_both(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every pair of SLUG's records of one encoder each the one that the rule prefers, as a record of any tower."""
    pairs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in found:
        if record["tower"]:
            pairs.setdefault((record["run"], record["name"], record["method"]), []).append(record)
    out = []
    for both in pairs.values():
        if len(both) == len(ENCODERS):
            best = max(both, key=_preference)
            cost = {c: sum(r[c] for r in both) for c in ("search_s", "n_candidates")}
            out.append(best | cost | {"tower": "any", "seconds": best["gradient_s"] + cost["search_s"]})
    return out


def _preference(record: Mapping[str, Any]) -> tuple[float, ...]:
    row = record["winner_validation"]
    kept = [row[f"{task}_acc1"] for task in schema.TASKS]
    retained = sum(kept) / len(kept) if all(isinstance(k, (int, float)) for k in kept) else float("nan")
    how = {"accuracy": row["forget_acc1"], "margin": row["margin"], "step": row["step"]}
    return selection.preference(forgotten=record["forgotten"], retained=retained, **how)


# ----------------------------------------------------------------------------------------------------------------- gold


def gold(settings: Benchmark) -> dict[str, dict[str, Any]]:
    """{name: the figures of a model that never saw it, on the test split}, of all gold models that are there.

    They are kept in gold.json beside the runs, and computed again where the protocol or the weights are others.
    """
    frozen, place = read(settings.frozen), files.resolve(settings.run.result_dir) / "gold.json"
    known = files.read_object(place) if place.is_file() else {}
    found: dict[str, dict[str, Any]] = {}
    for model in frozen.said["gold"]:
        folder = files.resolve(model["folder"])
        if not folder.is_dir():
            continue
        names = tuple(n.replace(" ", "_") for n in model["without"])
        mark = {"frozen": frozen.hash, "weights": files.file_hash(folder / "open_clip_model.safetensors")}
        group = known.get(model["group"], {})
        if {k: group.get(k) for k in mark} != mark:
            group = mark | {"names": _gold_of(settings, frozen.said, str(folder), names)}
            known[model["group"]] = group
            files.write_json(place, known)
        found |= group["names"]
    return found


def _gold_of(settings: Benchmark, said: Mapping[str, Any], folder: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    model = Model(model=f"local-dir:{folder}", pretrained="", eval_batch_size=256)
    world, found = World(settings.run, model, _data(settings, names)), {}
    aliases = read_aliases(said.get("aliases", []))
    for name in names:
        mine = aliases.get(plain_name(name).casefold(), [])
        found[plain_name(name)] = outcome.unedited(world.evaluators(name, world.pairs(name)), mine)
    return found


def assemble(settings: Benchmark) -> dict[str, Any]:
    """All that the report needs: the protocol's label and contents, records, what was left out, gold figures."""
    frozen = read(settings.frozen)
    if draft := frozen.draft(settings.quick):
        raise SlugError(draft)
    found, left_out = records(settings)
    if not found:
        raise SlugError(
            f"{settings.run.result_dir} has no record of {settings.frozen}; run scripts/run_benchmark_unlearning.sh"
        )
    system.settle(settings.run.device, settings.run.seed)
    return {"label": frozen.label, "said": frozen.said, "records": found, "left_out": left_out, "gold": gold(settings)}
