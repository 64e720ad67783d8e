"""The comparison: every baseline over its whole grid, scored and chosen as SLUG is (paper, table 1; a3_unlearn_compare.py).

Every finished job (one method with one setting) is a file, so a run that was stopped continues after it.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

from slug import cli, files, methods, progress, protocols, system
from slug.artifacts import records
from slug.artifacts.gradient_files import GradientFiles
from slug.core.edit import InPlace, kept
from slug.core.variants import Variant
from slug.data.names import plain_name
from slug.data.pairs import Pairs
from slug.errors import SlugError
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation
from slug.experiments.baseline import Baseline, Scored, Weights, changed
from slug.experiments.setup import World
from slug.methods import Material, Method, grids
from slug.methods._training import Schedule
from slug.models.clip import Clip
from slug.reports import reading
from slug.settings import UNEDITED, Compare

# These change no result, or a record says them elsewhere.
NOT_SETTINGS = (
    *("force", "celeb_name", "device", "workers", "result_dir", "cache_gb", "allow_missing", "frozen"),
    *("unlearn_method", "lr", "selection", "epochs", "forget_epochs", "settings_from", "grow"),
)


def default_methods() -> list[str]:
    """The baselines of a CLIP whose forget loss is SLUG's own, but for those that run only where they are asked for."""
    found = map(methods.get, methods.names(methods.CLIP, searched=False))
    return [m.name for m in found if not (m.variant.contrastive or m.asked)]


def stored_choices(path: str, names: Iterable[str], wanted: Iterable[str]) -> dict[tuple[str, str], tuple[float, int]]:
    """{(plain name, method): (setting, number of the candidate)} that an earlier comparison chose, from its table.csv.

    SlugError if the table lacks one of them.
    """
    file = files.existing(path, "table of an earlier comparison", "leave --settings-from out to search the grid")
    remedy = "leave --settings-from out to search the grid"
    table, found = reading.csv_table(file, ("name", "method", "split", "layer", "step"), remedy), {}
    rows = {(r["name"], r["method"]): r for r in table[table["split"] == "validation"].to_dict("records")}
    for key in itertools.product(map(plain_name, names), wanted):
        if key not in rows:
            raise SlugError(f"{file} has no row of {key[1]} for {key[0]}; leave --settings-from out to search the grid")
        try:
            found[key] = float(rows[key]["layer"].split()[-1]), int(rows[key]["step"])
        except (ValueError, AttributeError, IndexError) as err:
            raise SlugError(f"{file} does not say the setting of {key[1]} for {key[0]}; {remedy}") from err
    return found


def read_passes(gradients: GradientFiles, name: str, method: str) -> tuple[dict[str, Weights], float, float]:
    """What a method reads from gradient files. SlugError if one is missing.

    Returns:
        (fields of methods.Material, seconds of the name's own passes, seconds of the passes that serve all names).
    """
    made: dict[str, Weights] = {}
    own = shared = 0.0
    for variant in methods.get(method).gradients:
        found = gradients.load(name, variant)
        own += gradients.seconds(name, variant)
        if variant.squared:
            made |= {"forget_importance": found.forget, "retain_importance": found.retain}
            shared += gradients.seconds(name, variant, "train")
        else:
            made["gradient"] = found.forget
            if "retain" in methods.get(method).needs:
                made["retain_gradient"] = found.retain
                shared += gradients.seconds(name, variant, "train")
    return made, own, shared


def argument(method: Method, setting: float, made: Mapping[str, Any]) -> Any:
    """The setting as `method.candidates` takes it: a Schedule where it trains.

    Args:
        made: the settings of a record.
    """
    if not method.trains:
        return setting
    made_with = {k: made[k] for k in ("wd", "epochs", "batch_size", "warmup", "seed")}
    return Schedule(setting, **made_with, protocol=protocol_of(made), candidates=made.get("step_candidates", 0))


def protocol_of(made: Mapping[str, Any]) -> protocols.Protocol:
    """The protocol by the settings of a record; those of before protocols were made by our rules."""
    return protocols.get(made.get("protocol", protocols.OURS.name))


def redo(clip: Clip, record: Mapping[str, Any], material: Material) -> Weights:
    """Make again what a comparison chose: {name: value} of the weights that differ from the model's, which stays as it is.

    Candidates' weights are not kept, but their setting, seed and data are: the same machine finds the same weights again,
    another one finds them up to rounding.

    Args:
        record: the JSON record of a baseline.
        material: made of the pairs and gradients that the record was made with.
    """
    method = methods.get(record["method"])
    material = material._replace(protocol=protocol_of(record["settings"]))
    assert method.candidates is not None
    with kept(clip, clip.parameters) as base:
        for number in method.candidates(clip, material, argument(method, record["setting"], record["settings"])):
            if number == int(record["step"]):
                return changed(clip, base)
    raise SlugError(f"{record['method']} of {record['name']} has no candidate {record['step']}; run its stage again")


class Comparison:
    """One model and one evaluation, on which methods are run name by name."""

    def __init__(self, settings: Compare) -> None:
        self.settings = settings
        how: dict[str, Any] = {"rule": settings.rule, "grad_batch_size": settings.grad_batch_size}
        self.world = World(settings.run, settings.model, settings.data, **how)
        self.clip, self.gradients, self.names = self.world.clip, self.world.gradients, self.world.gradients.names
        loaded = {name: self.gradients.load(name, Variant()) for name in self.names}
        self.left_out = {name: found.left_out for name, found in loaded.items()}
        self.world.check_names()
        self.methods = list(dict.fromkeys(settings.unlearn_method)) or default_methods()
        wanted = [m for m in self.methods if m != UNEDITED]
        stored = stored_choices(settings.settings_from, self.names, wanted) if settings.settings_from else {}
        # Every gradient file is read here, so that a missing one is an error now, not after hours.
        spent = {key: read_passes(self.gradients, *key)[1:] for key in itertools.product(self.names, wanted)}
        self.baselines: dict[str, list[Baseline]] = {m: [] for m in wanted}
        for name, tar in ((n, found.tar) for n, found in loaded.items()):
            made_with = self._made_with([tar, self.gradients.retain_tar])
            for method in map(methods.get, wanted):
                epochs = {"epochs": getattr(settings, method.epochs)}
                baseline = Baseline(
                    name=name,
                    method=method,
                    clip=self.clip,
                    model_hash=self.world.model_hash,
                    settings=settings,
                    folder=files.resolve(settings.run.result_dir) / "clip",
                    made_with=made_with | {"settings": made_with["settings"] | epochs},
                    stored=stored.get((plain_name(name), method.name)),
                    seconds=spent[name, method.name],
                    evaluators=functools.partial(self.evaluators, name, method.retains),
                )
                self.baselines[method.name].append(baseline)
        counts = [len(b.grid) * b.count for m in wanted for b in self.baselines[m]]
        self.bar = progress.bar(unit="candidate", total=sum(counts), desc="baselines")

    def _made_with(self, tars: Sequence[Any]) -> dict[str, Any]:
        return {
            "settings": cli.flat(self.settings, NOT_SETTINGS),
            "rule": cli.flat(self.settings.rule),
            "protocol": self.settings.run.protocol,
            "points": protocols.values(self.settings.run.rules),
            **self.settings.frozen_rules,
            "versions": cli.versions(),
            "inputs": records.inputs_hash(self.world.model_hash, [], self.world.pictures, tars),
        }

    # Features and decoded pairs are needed only for what is not finished: they are made when first asked for.

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """Baselines edit both towers from the first layer on, so no activations are kept."""
        return self.world.evaluation_now(cache_gb=0)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (one Comparison lives as long as the process)
    def retain(self, name: str) -> Pairs:
        """The retain set of a name."""
        return self.world.retain_pairs(self.left_out[name])

    @functools.cache  # noqa: B019  (one Comparison lives as long as the process)
    def evaluators(self, name: str, retains: bool = False) -> dict[str, ClipEvaluator]:
        """{split: ClipEvaluator} of a name; `retains`: by the rule that keeps what retains most."""
        pairs, trace = self.world.pairs(name), self.settings.data.trace
        return self.world.evaluators(name, pairs, evaluation=self.evaluation, trace=trace, epochs=True, retains=retains)

    # --------------------------------------------------------------------------------------------------------- work

    def run(self) -> None:
        """Run all methods; valid records are kept."""
        made = []
        for method in self.methods:
            if method == UNEDITED:
                for name in self.names:
                    start = self.evaluators(name)["validation"].start
                    progress.write(f"{name}, {UNEDITED}: {records.log_line(0, start.row())}")
            else:
                for record in map(self.compare, self.baselines[method]):
                    progress.write(records.one_line(record))
                    made.append(record)
        self.bar.close()
        if records.ending(made):
            print(records.ending(made))

    def compare(self, baseline: Baseline) -> dict[str, Any]:
        """Run all jobs of a baseline; writes and returns its record."""
        asked, found = baseline.grid, baseline.finished()
        self.bar.update(len(asked) * baseline.count if found else 0)

        def chosen() -> list[float]:
            best = baseline.best()
            return [s for s in baseline.jobs if best and baseline.label(s) == best.layer]

        grow = self.settings.grow * baseline.method.grows
        for setting in grids.growing([] if found else asked, grow, chosen):
            self.bar.total = (self.bar.total or 0) + (0 if setting in asked else baseline.count)
            self.run_job(baseline, setting)
        return found or baseline.choose()

    def run_job(self, baseline: Baseline, setting: float) -> None:
        """Run one job and score every candidate of it, unless it has a valid record."""
        if baseline.finished_job(setting):
            self.bar.update(baseline.count)
            return
        self.bar.set_postfix_str(f"{baseline.method.name} {baseline.label(setting)} {baseline.name}")
        scored = Scored(baseline.evaluators()["validation"], baseline.best(), whole=baseline.method.retains)
        system.reset_peak_memory(self.clip.device)
        times = self._candidates(baseline, setting, scored)
        baseline.write_job(setting, scored, times, system.peak_memory_mb(self.clip.device))

    def _candidates(self, baseline: Baseline, setting: float, scored: Scored) -> list[float]:
        """Make the candidates of a job and score them; returns the seconds after which each was made, scoring left out."""
        method, only = baseline.method, baseline.only
        assert method.candidates is not None
        name = scored.evaluator.target.name
        made: dict[str, Any] = {"protocol": self.world.protocol, "name": name, "names": self.world.names_besides(name)}
        made |= read_passes(self.gradients, baseline.name, method.name)[0]
        material = Material(scored.evaluator.pairs, self.retain(baseline.name), method.variant, **made)
        how = argument(method, setting, baseline.made_with["settings"])
        times: list[float] = []
        with kept(self.clip, self.clip.parameters) as base:
            started = perf_counter()
            for number in method.candidates(self.clip, material, how):
                times.append((times[-1] if times else 0.0) + perf_counter() - started)
                self.bar.update()
                if not only or number == only:
                    edit = InPlace.of(self.clip, baseline.label(setting), number, base)
                    with self.evaluation.carrying(edit):
                        scored.score(edit, base)
                if number == only:
                    break
                started = perf_counter()
        return times
