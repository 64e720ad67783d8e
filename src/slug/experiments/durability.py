"""Durability of every edit on record: SLUG's deltas, and baselines trained again from what their records say
(a7_lasting.py)."""

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from slug import cli, files, methods, models, progress, schema
from slug.artifacts import deltas, records
from slug.core.edit import Edit, Replacement
from slug.data.names import plain_name, read_aliases
from slug.data.pairs import Pairs
from slug.errors import SlugError
from slug.evaluation.clip_tasks import Evaluation
from slug.evaluation.durability import Row, Subject
from slug.experiments import comparison, runner
from slug.experiments.runner import Parts
from slug.experiments.setup import World
from slug.settings import Durability

NOT_SETTINGS = (  # change no row
    "force celeb_name device workers jobs result_dir cache_gb records unlearn_method out readme report "
    "select_pictures trace fa_k allow_missing gold"
).split()
Record = dict[str, Any]
AGAIN = "delete it and run this stage again"


def parts(settings: Durability) -> Parts:
    """The rows of all tests: one piece of work is a test of an edit."""
    folder = files.resolve(settings.run.result_dir) / "lasting"
    return Parts(folder, ("model", "name", "method", "test"), "made_with")


def label(settings: Durability) -> str:
    """What the model is called in records, without loading it."""
    return models.label_of(settings.model.model, settings.model.clip_model_id)


class OnRecord(NamedTuple):
    """The records of the names and methods asked for."""

    found: dict[tuple[str, str], Record]  # (name, method)
    folder: Path
    names: list[str]  # all names on record


def records_folder(settings: Durability) -> Path:
    """Where the records lie."""
    return files.resolve(settings.records or f"{settings.run.result_dir}/clip")


def on_record(settings: Durability, model: str) -> OnRecord:
    """The edits to test of the model that records call `model`. SlugError where a record is missing or of other splits."""
    run, folder = settings.run, records_folder(settings)
    every = records.read_all(folder, model)
    if not every:
        raise SlugError(f"no records of {model} in {folder}; make them with: bash scripts/run_clip_slug.sh")
    found = {}
    for name in dict.fromkeys(map(plain_name, settings.data.celeb_name)):
        mine = {r["method"]: r for r in every if r["name"].casefold() == name.casefold()}
        wanted = settings.unlearn_method or [m for m in methods.names() if m in mine]
        lacks = next((m for m in wanted if m not in mine), None)
        if lacks or not mine:
            raise SlugError(f"no record of {lacks or 'any method'} for {name} in {folder}; run its stage (a2 or a3) first")
        for method in wanted:
            records.check_splits(mine[method], seed=run.seed, imagenet_share=settings.data.imagenet_share)
            found[name, method] = mine[method]
    return OnRecord(found, folder, sorted({r["name"] for r in every}))


class Edits:
    """The edit of every record."""

    def __init__(self, world: World, on: OnRecord) -> None:
        self.world, self.folder, self.names = world, on.folder, on.names
        self.given = {plain_name(n): n for n in world.gradients.names}  # gradients lie under a name as it was given

    @functools.lru_cache(maxsize=1)  # noqa: B019  (one Edits lives as long as the process)
    def retain(self, name: str) -> Pairs:
        """The retain set of a name."""
        return self.world.retain_pairs(self.left_out(name))

    def left_out(self, name: str) -> list[str]:
        """The names whose pairs the retain set of a name leaves out."""
        return self.names if self.world.protocol.all_names_left_out else [plain_name(name)]

    def fingerprint(self, record: Record) -> str:
        """What tells one edit from another. SlugError if the record does not say it, or the delta is missing."""
        try:
            if schema.is_slug(record["method"]):
                path = self.folder / record["delta"]
                return files.file_hash(files.existing(path, "delta", "run a2_unlearn_slug.py again"))
            said = [record[k] for k in ("setting", "step", "settings", "inputs")]
        except KeyError as err:
            path = self.folder / records.record_file(record)
            raise SlugError(f"{path} is not a whole record: it lacks {err}; delete it and run its stage again") from err
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def check(self, name: str, record: Record, inputs: str) -> None:
        """SlugError if an edit cannot be made again: a baseline's record is of other data or another model, or its gradients
        are missing; a delta is refused by another model itself."""
        if schema.is_slug(record["method"]):
            deltas.of_model(self.world.clip, self.folder / record["delta"])
        elif record["inputs"] != inputs:
            said = f"the record of {record['method']} for {record['name']} was made with another model or other data"
            raise SlugError(f"{said}; run a3_unlearn_compare.py again")
        else:
            self.passes(name, record)

    def passes(self, name: str, record: Record) -> dict[str, Any]:
        """What a baseline reads from gradient files, as fields of methods.Material."""
        files_of = self.world.gradients
        files_of.batch_size = record["settings"]["grad_batch_size"]
        return comparison.read_passes(files_of, self.given[name], record["method"])[0]

    def edit(self, name: str, record: Record, pairs: Pairs) -> Edit:
        """The edit of a record on a name with the forget set `pairs`."""
        method, clip = methods.get(record["method"]), self.world.clip
        if schema.is_slug(method.name):
            return Edit(deltas.of_model(clip, self.folder / record["delta"]), record["layer"], record["step"])
        made = self.passes(name, record) | {"name": plain_name(name), "names": self.world.names_besides(name)}
        material = methods.Material(pairs, self.retain(name), method.variant, **made)
        return Replacement(comparison.redo(clip, record, material), record["layer"], record["step"])


def joined(rows: list[Row], original: list[Row], common: Row) -> list[Row]:
    """The rows of an edit with the columns `common`, and beside them the unedited model's figures under the same setting; a
    single row of `original` stands for all settings."""
    before, out = {r["setting"]: r for r in original}, []
    for row in rows:
        first = original[0] if len(original) == 1 else before[row["setting"]]
        beside = {"original": first["value"], "original_low": first["low"], "original_high": first["high"]}
        beside |= {f"original_{t}": first[f"{t}_acc1"] for t in schema.TASKS if f"{t}_acc1" in first}
        out.append(common | row | beside)
    return out


class Share:
    """The tests of some names in one process."""

    def __init__(self, settings: Durability, names: Sequence[str]) -> None:
        """`names` as people write them."""
        on_record(settings, label(settings))  # what is missing is said before the model is loaded
        self.settings, self.parts = settings, parts(settings)
        # Baselines were trained at batches of their own; the gradients' batch size is that of their records.
        self.world = World(settings.run, settings.model, settings.data)
        self.world.clip.label = label(settings)
        self.world.clip.label = records.own_label(records_folder(settings), self.world.clip, self.world.model_hash)
        on = on_record(settings, self.world.clip.label)
        self.on = on._replace(found={key: record for key, record in on.found.items() if key[0] in names})
        self.edits = Edits(self.world, self.on)

    def plan(self) -> dict[tuple[str, str], tuple[str, list[str]]]:
        """{(name, method): (all that its rows depend on, as JSON; tests that are not finished)}, in the order of the work.
        SlugError if something that the work will need is missing: it is missed now, not after hours."""
        aliases, jobs, inputs = read_aliases(self.settings.aliases), {}, {}
        done = pd.DataFrame(columns=["made_with", "test"])
        if self.parts.table.is_file() and not self.settings.force:
            done = runner.read_table(self.parts.table, AGAIN)
        flags, files_of = cli.flat(self.settings, NOT_SETTINGS), self.world.gradients
        for (name, method), record in self.on.found.items():
            if name not in inputs:
                tars = [files_of.tar(self.edits.given[name]), files_of.retain_tar]
                inputs[name] = records.inputs_hash(self.world.model_hash, [], self.world.pictures, tars)
            made = {"name": name, "method": method, "settings": flags, "versions": cli.versions(), "inputs": inputs[name]}
            made |= {"left_out": self.edits.left_out(name), "aliases": aliases.get(name.casefold(), [])}
            mark = json.dumps(made | {"edit": self.edits.fingerprint(record)}, sort_keys=True)
            finished = set(done[done["made_with"] == mark]["test"])
            jobs[name, method] = mark, [t for t in schema.TESTS if t not in finished]
            if jobs[name, method][1]:
                self.edits.check(name, record, inputs[name])
        return jobs

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """Many edits are of both towers from the first layer on: no activations are kept unless --cache-gb says so."""
        return self.world.evaluation_now(cache_gb=max(self.settings.data.cache_gb, 0))

    def run(self, position: int = 0) -> list[str]:
        """Every test that is not finished; returns the marks of all edits. `position` is the progress bar's line."""
        jobs, subject = self.plan(), None
        unedited: dict[str, list[Row]] = {}
        with progress.bar(
            total=sum(len(todo) for _, todo in jobs.values()), unit="test", desc="tests", position=position
        ) as bar:
            for (name, method), (mark, todo) in jobs.items():
                if not todo:
                    continue
                bar.set_postfix_str(f"{name}, {method}")
                if subject is None or subject.target.name != name:  # the names come one after another
                    of_name = self.world.masks, self.evaluation.target(name), self.world.pairs(self.edits.given[name])
                    aliases, unedited = json.loads(mark)["aliases"], {}
                    subject = Subject(self.evaluation, *of_name, self.edits.retain(name), self.settings, aliases)
                self.test(subject, self.on.found[name, method], mark, todo, unedited, bar)
        return [mark for mark, _ in jobs.values()]

    def test(
        self, subject: Subject, record: Record, mark: str, todo: list[str], unedited: dict[str, list[Row]], bar: Any
    ) -> None:
        """Run tests on one edit and write the rows of each; `unedited`, {test: rows of the unedited model}, grows."""
        name, method, model = subject.target.name, record["method"], self.world.clip.label
        common = {"name": name, "kind": record["kind"], "method": method, "model": model}
        common |= {"seed": self.settings.run.seed, "relearn_lr": self.settings.relearn_lr, "made_with": mark}
        edit = self.edits.edit(name, record, subject.pairs)
        for test in todo:
            beside = schema.EDIT if test in (schema.RELEARNED, schema.MERGED) else test
            if beside not in unedited:
                unedited[beside] = subject.test(beside, Edit())
            started = time.perf_counter()
            rows = subject.test(test, edit)
            seconds = time.perf_counter() - started
            if test == schema.EDIT:
                compare_with_record(record, rows[0]["value"])
            rows = joined(rows, unedited[beside], common | {"test": test, "seconds": seconds})
            self.parts.write(rows, model, name, method, test)
            bar.update()


def compare_with_record(record: Record, value: float) -> None:
    """Print a note where an edit does not score on the test split what its record says."""
    said = record["splits"]["test"][record["method"]]["forget_acc1"]
    if abs(said - value) > 1e-6:
        subject = f"{record['name']}, {record['method']}"
        progress.write(f"note: {subject}: forget accuracy {value:.1%}, its record says {said:.1%}")


def run_share(share: tuple[int, list[str]], settings: Durability) -> list[str]:
    """The tests of a share, (number of this process, names as people write them), in a process that knows nothing yet."""
    return Share(settings, share[1]).run(share[0])


def run(settings: Durability) -> list[str]:
    """Run what is not finished; returns what `rows` takes."""
    names = list(dict.fromkeys(map(plain_name, settings.data.celeb_name)))
    jobs = min(settings.jobs, len(names))
    shares = [(i, names[i::jobs]) for i in range(jobs)]
    done = runner.deal(functools.partial(run_share, settings=settings), shares, jobs=jobs)
    return [mark for part in done for mark in part]


def rows(settings: Durability, marks: Sequence[str]) -> pd.DataFrame:
    """The rows of the names and methods whose marks these are."""
    frame = parts(settings).collect(AGAIN)
    return frame[frame["made_with"].isin(marks)]
