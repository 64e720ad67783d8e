"""The UnlearnCanvas protocol: prompts of styles and objects, the classifiers that judge pictures, UA, IRA and CRA.

A concept is one style or one object. With pictures of all cells (style x object) in several seeds, for a style s: UA is 1 -
style accuracy on the prompts of s, IRA the style accuracy on the other styles' prompts, CRA the object accuracy on those
same prompts; for an object the roles change (PAPER.md, section 2). The seeds that choose a step are never those of the
report.
"""

import collections
import csv
import hashlib
import io
import itertools
import math
import statistics
import time
from typing import NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before timm)

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torchvision import transforms

from slug import files, zeroshot
from slug.data import plain_name
from slug.errors import SlugError, brief

KINDS = ("style", "object")
OTHER = {"style": "object", "object": "style"}
HALVES = ("select", "report")
REPORT_SEEDS, SELECT_SEEDS = (0, 1, 2, 3, 4), (1000, 1001, 1002, 1003, 1004, 1005)
APART = 10_000  # between the seeds of one cell and those of the next
CHUNK = 32  # pictures between two looks at whether a candidate can still win
THIRDS = 3  # parts of the forgotten concept's own pictures; after each a candidate that is far behind is given up


class Request(NamedTuple):
    """A picture that is asked for."""

    half: str  # select or report
    style: str  # names as people write them; a style may be empty: the object's name alone is asked for
    object: str
    seed: int

    @property
    def prompt(self):
        """The protocol's prompt; underscores of folder names become spaces (trap 7)."""
        style, thing = plain_name(self.style), plain_name(self.object)
        return f"An {thing} image in {style} style." if style else thing


FIELDS = (*Request._fields, "prompt")


def add_concept_flags(parser, what="names to forget"):
    """--style and --object."""
    parser.add_argument("--style", nargs="*", default=[], help=f"styles: {what}")
    parser.add_argument("--object", nargs="*", default=[], help=f"objects, characters or people: {what}")


def concepts(args):
    """[(kind, name)] of `add_concept_flags`."""
    return list(dict.fromkeys([("style", s) for s in args.style] + [("object", o) for o in args.object]))


def grid(folder):
    """([style], [object]) of a folder of <Style>/<Object>/<n>.jpg, as their folders are called. SlugError if it has none."""
    cells = [p.relative_to(folder).parts for p in sorted(folder.glob("*/*")) if p.is_dir()]
    if not cells:
        raise SlugError(f"{folder} has no <Style>/<Object> folders; data/README.md says how UnlearnCanvas is laid out")
    return tuple(sorted({cell[i] for cell in cells}) for i in (0, 1))


def among(given, known, kind):
    """The names of `known` that were given, spaces or underscores alike, each once; all where none was. SlugError for
    another one."""
    plain = {plain_name(n): n for n in known}
    missing = next((n for n in given if plain_name(n) not in plain), None)
    if missing:
        raise SlugError(
            f"there is no {kind} {missing!r}; there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
        )
    return list(dict.fromkeys(plain[plain_name(n)] for n in given)) or list(known)


def requests(styles, objects, *, report=REPORT_SEEDS, select=SELECT_SEEDS, shared=False):
    """Requests for every cell of a grid, in both halves.

    Args:
        report, select: seeds of the first cell, below APART; those of each further cell lie APART higher. What is forgotten
            in one noise may show in the next, so that a few noises shared by all cells would say little about others.
        shared: all cells have the same seeds, as published.
    """
    if set(report) & set(select):
        raise SlugError("a seed cannot both choose a step and report it; give other seeds")
    if not all(0 <= s < APART for s in (*report, *select)):
        raise SlugError(f"seeds are whole numbers below {APART}; give other ones")
    cells = [
        (style, thing, 0 if shared else APART * i) for i, (style, thing) in enumerate(itertools.product(styles, objects))
    ]
    seeds = [("select", s) for s in select] + [("report", s) for s in report]
    return [Request(half, style, thing, first + seed) for half, seed in seeds for style, thing, first in cells]


def write_requests(path, found):
    """Write requests as CSV, with the prompt beside each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([(*r, r.prompt) for r in found])
    files.write_text(path, out.getvalue())


def read_requests(path):
    """The requests of a CSV. SlugError if it is missing or no such file, or if a seed stands in both halves."""
    path = files.existing(path, "prompts", "make them with src/clip/a0_create_prompts_uncanvas.py")
    found = []
    for number, row in enumerate(files.read_csv(path, FIELDS, "make it again"), 2):
        if row["half"] not in HALVES or not row["seed"].isdigit():
            raise SlugError(f"{path}, line {number}: half must be select or report, and seed a whole number")
        found.append(Request(row["half"], row["style"], row["object"], int(row["seed"])))
    seeds = {half: {r.seed for r in found if r.half == half} for half in HALVES}
    if seeds["select"] & seeds["report"]:
        raise SlugError(f"{path}: seed {min(seeds['select'] & seeds['report'])} stands in both halves; use other seeds")
    return found


# --------------------------------------------------------------------------------------------------------- classifiers


class Classifiers:
    """A style and an object classifier on the same pictures.

    Attributes:
        labels: {"style": [name], "object": [name]}.
    """

    def __init__(self, networks, labels, mean, std, size, device="cpu"):
        """
        Args:
            networks: {kind: module}, pictures (N, 3, size, size) -> logits (N, classes).
            mean, std: of the three channels, pictures in [0, 1].
        """
        self.networks = {n: m.to(device).eval().requires_grad_(False) for n, m in networks.items()}
        self.labels, self.size, self.device = labels, size, device
        self.mean, self.std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (mean, std))

    def hash(self):
        """What an answer depends on."""
        state = {f"{k} {n}": t for k, m in self.networks.items() for n, t in m.state_dict().items()}
        state |= {"mean": self.mean, "std": self.std}
        return hashlib.sha256(f"{files.tensor_hash(state)}{self.labels}{self.size}".encode()).hexdigest()

    def _batches(self, images, batch_size=256):
        for part in images.split(batch_size):
            x = part.to(self.device).float() / 255
            if x.shape[-1] != self.size:
                x = torch.nn.functional.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(0, 1)
            yield (x - self.mean) / self.std

    @torch.inference_mode()
    def logits(self, images):
        """{kind: (N, classes)} logits of uint8 pictures (N, 3, H, W)."""
        parts = [{n: m(x).float().cpu() for n, m in self.networks.items()} for x in self._batches(images)]
        return {n: torch.cat([p[n] for p in parts]) for n in self.networks}

    @torch.inference_mode()
    def features(self, images):
        """(N, D) what the object classifier's last layer reads, of uint8 pictures (N, 3, H, W)."""
        network = self.networks["object"]
        parts = [network.forward_head(network.forward_features(x), pre_logits=True) for x in self._batches(images)]
        return torch.cat(parts).float().cpu()


class ClipClassifiers:
    """The unedited CLIP as the judge, zero-shot: for concepts that no classifier knows. As Classifiers."""

    def __init__(self, clip, labels):
        """
        Args:
            clip: models.Clip.
            labels: see Classifiers; a kind without names is not judged.
        """
        self.clip, self.labels = clip, {k: v for k, v in labels.items() if v}
        templates = {"style": ("{} style.",), "object": ("{}",)}
        self.weights = {k: zeroshot.classifier(clip, v, templates[k]) for k, v in self.labels.items()}

    def hash(self):
        """As Classifiers.hash."""
        return hashlib.sha256(f"{files.tensor_hash(self.weights)}{self.labels}".encode()).hexdigest()

    def logits(self, images):
        """As Classifiers.logits: cosines."""
        side = self.clip.side
        if images.shape[-1] != side:
            images = torch.nn.functional.interpolate(images.float(), side, mode="bicubic", antialias=True)
            images = images.round().clamp(0, 255).to(torch.uint8)
        features = zeroshot.image_features(self.clip, images)
        return {k: (features @ w.T).cpu() for k, w in self.weights.items()}


def weights_of(folder, kind):
    """Path of a classifier's weights in a folder as data/README.md describes it, None where they are missing."""
    return next((p for end in (".safetensors", ".pth") if (p := folder / f"{kind}{end}").is_file()), None)


PUBLISHED = files.ROOT / "data/uncanvas/classifiers.json"  # of UnlearnCanvas's own classifiers


def _names(value):
    return isinstance(value, list) and bool(value) and all(isinstance(n, str) for n in value)


SETTINGS = {  # of classifiers.json: {key: (what it is, whether a value is one)}
    "arch": ("a network of timm", timm.is_model),
    "labels": ("lists of the styles and the objects", lambda v: all(_names(v[k]) for k in KINDS)),
    "mean": ("three numbers", lambda v: len([float(x) for x in v]) == 3),
    "std": ("three numbers", lambda v: len([float(x) for x in v]) == 3),
    "size": ("a number of pixels", lambda v: isinstance(v, int) and v > 0),
}


def classifier_settings(folder):
    """What classifiers.json in a folder says of both classifiers: SETTINGS, labels in the order of the outputs, and timm's
    "options" where there are any. Without it the weights there are taken for UnlearnCanvas's own: PUBLISHED.

    Raises:
        SlugError: it is damaged, or lacks something.
    """
    path = folder / "classifiers.json"
    path = path if path.is_file() else PUBLISHED
    settings = files.read_json(path)
    for key, (what, good) in SETTINGS.items():
        try:
            fine = good(settings[key])
        except (KeyError, TypeError, ValueError, AttributeError):
            fine = False
        if not fine:
            raise SlugError(f"{path}: {key!r} is missing or not {what}; data/README.md, Styles, says what the file holds")
    return settings


def load_classifiers(folder, device="cpu"):
    """The Classifiers of a folder: as `classifier_settings` says, and style.safetensors and object.safetensors (or .pth)
    hold timm weights.

    Raises:
        SlugError: a file is missing or damaged, or its weights do not fit.
    """
    folder = files.existing(folder, "classifiers", "give --classifiers, a folder as data/README.md describes")
    settings = classifier_settings(folder)
    networks = {}
    for kind in KINDS:
        path = weights_of(folder, kind)
        if path is None:
            raise SlugError(f"{folder} has no {kind}.safetensors or {kind}.pth; data/README.md says where to get it")
        classes = len(settings["labels"][kind])
        try:
            networks[kind] = timm.create_model(settings["arch"], num_classes=classes, **settings.get("options", {}))
            state = load_file(path) if path.suffix != ".pth" else files.read_tensors(path, "get it again")
            state = state.get("model_state_dict", state)
            networks[kind].load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as err:
            raise SlugError(
                f"{path} does not fit {settings['arch']} ({brief(err)}); say in classifiers.json beside it what it is"
            ) from err
    return Classifiers(networks, settings["labels"], settings["mean"], settings["std"], settings["size"], device)


# -------------------------------------------------------------------------------------------------------------- scores


class Scores(NamedTuple):
    """Of one unlearned concept, fractions; NaN where no picture says anything."""

    UA: float
    IRA: float
    CRA: float


def check_known(asked, labels):
    """SlugError where a classifier has no label for what a Request asks for.

    Args:
        labels: see Classifiers.
    """
    for kind, names in labels.items():
        known = dict.fromkeys(plain_name(n) for n in names)
        missing = sorted({plain_name(getattr(r, kind)) for r in asked} - set(known) - {""})
        if missing:
            some = ", ".join(list(known)[:8])
            raise SlugError(f"the {kind} classifier does not know {missing[0]!r}; ask for what it knows: {some}, ...")


def correct(asked, logits, labels):
    """{kind: (N,) bool}: whether each classifier takes a picture for what was asked for.

    Args:
        asked: N Requests.
        logits, labels: see Classifiers.
    """
    check_known(asked, labels)
    out = {}
    for kind, found in logits.items():
        known = {plain_name(n): i for i, n in enumerate(labels[kind])}
        wanted = torch.tensor([known.get(plain_name(getattr(r, kind)), -1) for r in asked])
        out[kind] = found.argmax(1) == wanted
    return out


def shows(kind, name, asked):
    """[bool]: whether each Request asks for the concept `name` of a kind."""
    return [plain_name(getattr(r, kind)) == plain_name(name) for r in asked]


def scores(kind, name, asked, right):
    """Scores of pictures.

    Args:
        kind: "style" or "object", of the forgotten concept `name`.
        asked: N Requests.
        right: see `correct`.
    """
    own = torch.tensor(shows(kind, name, asked))

    def share(which, rows):
        return right[which][rows].float().mean().item() if which in right and rows.any() else math.nan

    return Scores(1 - share(kind, own), share(kind, ~own), share(OTHER[kind], ~own))


class Step(NamedTuple):
    """One candidate on the select half, as search.Step is for zero-shot accuracies."""

    layer: str
    step: float
    UA: float
    IRA: float = math.nan
    CRA: float = math.nan
    margin: float = math.nan  # mean logit of the forgotten concept less that of the best other one, on its own prompts
    margin_sd: float = math.nan
    wanted: float = 0.9  # UA from which on the concept counts as forgotten
    kept: bool | None = None  # whether IRA and CRA stay above the floors; None where that was not found out
    seconds: float = math.nan

    @property
    def forget_acc1(self):
        """Accuracy of the forgotten concept on its own prompts."""
        return 1 - self.UA

    @property
    def expected(self):
        """UA that a normal fit to the margins expects of other pictures: of few pictures none may be recognised, and all be
        on the brink. UA itself where there is no spread to go by."""
        if not self.margin_sd > 0:
            return self.UA
        return 0.5 * math.erfc(self.margin / (self.margin_sd * math.sqrt(2)))

    @property
    def reached(self):
        """UA as counted and as expected, the lower of the two, as far as it is wanted."""
        return min(self.UA, self.expected, self.wanted)

    @property
    def forgets(self):
        """Whether the concept is forgotten, on the select half."""
        return self.wanted - 1e-9 <= self.reached

    def progress(self, rule):
        """What search.next_step is told: 1 where the step goes far enough or too far, else the part of the way to it."""
        return 1.0 if self.forgets or self.kept is False else min(self.reached / self.wanted, 0.99)

    @property
    def retain(self):
        """What a step is chosen by: the mean of IRA and CRA (of the one there is)."""
        known = [x for x in (self.IRA, self.CRA) if not math.isnan(x)]
        return sum(known) / len(known) if known else math.nan


class Judge:
    """Scores the pipeline's present weights for one concept on pictures of one half; see unlearn.Judge."""

    def __init__(self, diffusion, classifiers, asked, kind, name, *, wanted, keep, others, half="select", seed=0):
        """
        Args:
            diffusion: models.diffusion.Diffusion.
            classifiers: Classifiers or ClipClassifiers.
            asked: [Request]; those of `half` are used.
            others: pictures of other concepts, at most, drawn from all of them by `seed`.
            wanted: UA from which on a step forgets, as counted and as expected.
            keep: part of the present weights' IRA and of their CRA that a candidate has to leave.

        Attributes:
            start: Step of the weights that the judge was made at, everything scored.
            best: the Step that `winner` prefers so far, `start` to begin with.
        """
        self.diffusion, self.classifiers, self.kind, self.name, self.wanted = diffusion, classifiers, kind, name, wanted
        asked = [r for r in asked if r.half == half]
        check_known(asked, classifiers.labels)
        mine = shows(kind, name, asked)
        self.own = [r for r, m in zip(asked, mine, strict=True) if m]
        self.others = [r for r, m in zip(asked, mine, strict=True) if not m]
        order = torch.randperm(len(self.others), generator=torch.Generator().manual_seed(seed))
        self.others = [self.others[i] for i in order[:others].tolist()]
        if not self.own or not self.others:
            raise SlugError(
                f"the prompts' {half} half has none of the {kind} {name}, or of nothing else; make other prompts"
            )
        self.floors, self.missed = {}, collections.Counter()
        self.best = self.start = self.step("", 0.0, None, log_all=True)
        self.floors = {n: keep * getattr(self.start, n) for n in ("IRA", "CRA") if not math.isnan(getattr(self.start, n))}

    def settled(self):
        """Whether the best step forgets and all that was retained still is: the search may end, for what retains more than
        the weights it began at owes that to the draw."""
        return self.best is not self.start and self.best.forgets and self.best.retain >= self.start.retain

    def applied(self, edit):
        """Context within which the pipeline carries an edit."""
        return self.diffusion.applied(edit)

    def pictures(self, asked, desc=None):
        """(uint8 pictures, {kind: (N,) bool correct}, logits) of Requests under the present weights."""
        images = self.diffusion.generate([r.prompt for r in asked], [r.seed for r in asked], desc=desc)
        logits = self.classifiers.logits(images)
        return images, correct(asked, logits, self.classifiers.labels), logits

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """Score the present weights: Step. The forgotten concept's pictures are made in THIRDS, and UA is of the first ones
        only where these reach less than half of what the best step did. The other concepts' pictures are made only where
        `winner` may prefer the step, and only until it cannot any more."""
        started = time.perf_counter()
        label = [plain_name(n) for n in self.classifiers.labels[self.kind]].index(plain_name(self.name))
        right, margins = [], []
        for part in torch.arange(len(self.own)).chunk(THIRDS):
            _, found, logits = self.pictures([self.own[i] for i in part.tolist()])
            rest = logits[self.kind].clone()
            rest[:, label] = -torch.inf
            right += found[self.kind].tolist()
            margins += (logits[self.kind][:, label] - rest.max(1).values).tolist()
            row = Step(layer, step, 1 - sum(right) / len(right), wanted=self.wanted)
            spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
            row = row._replace(margin=statistics.fmean(margins), margin_sd=spread)
            if self.floors and row.reached < self.best.reached / 2:
                break
        if log_all:
            row = row._replace(**self._retain(-math.inf))
        elif self.best.reached <= row.reached > 0:
            row = row._replace(**self._retain(self.best.retain if self.best.reached == row.reached else -math.inf))
        row = row._replace(seconds=time.perf_counter() - started)
        if self.floors:
            self.best = self.winner([self.best, row])
        return row

    def _retain(self, beat):
        """IRA, CRA and whether they stay above the floors. Without IRA and CRA where one falls below its floor, or their
        mean below `beat`."""
        names = {self.kind: "IRA", OTHER[self.kind]: "CRA"}
        wrong, done = {}, 0
        # What candidates missed most often first: a floor that cannot be kept shows after few pictures.
        others = sorted(self.others, key=lambda r: -self.missed[r])
        while done < len(others):
            part = others[done : done + CHUNK]
            for kind, right in self.pictures(part)[1].items():
                self.missed.update(r for r, hit in zip(part, right.tolist(), strict=True) if not hit)
                wrong[names[kind]] = wrong.get(names[kind], 0) + int((~right).sum())
            done += len(part)
            bound = {n: 1 - w / len(self.others) for n, w in wrong.items()}
            if any(b < self.floors.get(n, 0) for n, b in bound.items()):
                return {"kept": False}
            if sum(bound.values()) / len(bound) < beat:
                return {}
        return bound | {"kept": True}

    @staticmethod
    def winner(candidates):
        """Of the candidates that stay above the floors the one of the highest UA, then the one that retains most: None where
        there is none (Step.reached: UA beyond what is wanted is no merit). Every method is chosen by this rule; all figures
        are of the select half."""
        allowed = [c for c in candidates if c.kept]
        return max(allowed, key=lambda c: (c.reached, c.retain)) if allowed else None


def resize(size):
    """A transform of PIL pictures: uint8 (3, size, size), the middle where they are not square."""
    steps = (transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size))
    return transforms.Compose([*steps, transforms.PILToTensor()])


# --------------------------------------------------------------------------------------------------------------- files


def file_stem(pipeline, method, kind, name):
    """Name of a concept's result files, without their endings."""
    return files.safe_name(f"{pipeline}-{method}-{kind}-{name.replace(' ', '_')}")


def read_records(folder, pipeline, base, prompts):
    """The records that b2_unlearn_sd.py wrote of a pipeline with these prompts.

    Args:
        pipeline, base: models.diffusion.Diffusion's tag and hash.
        prompts: path of the CSV.
    Raises:
        SlugError: there are none, or they are of other weights.
    """
    found = [files.read_json(p) for p in sorted(folder.glob(f"{pipeline}-*.json"))]
    prompts_hash = files.file_hash(files.existing(prompts, "prompts", "give --prompts"))
    # A pipeline's tag may begin as another one's, with a hyphen after it.
    found = [r for r in found if (r["pipeline"], r["prompts_hash"]) == (pipeline, prompts_hash)]
    if not found:
        raise SlugError(f"{folder} has no record of {pipeline} with these prompts; make them with src/sd/b2_unlearn_sd.py")
    stale = [r["name"] for r in found if r["pipeline_hash"] != base]
    if stale:
        raise SlugError(f"the records of {', '.join(stale)} are of other weights or settings; run b2_unlearn_sd.py again")
    return found


def curve(steps, shares):
    """What a method can reach on the select half: for each share the mean over concepts of the best UA among the candidates
    that leave at least this part of the original's IRA, and of its CRA.

    A candidate without IRA and CRA, since it could not win, counts nowhere: the true curve may lie higher.

    Args:
        steps: DataFrame of a method's candidates, the unedited pipeline being step 0 of each concept: name, step, UA, IRA,
            CRA.
    """
    best = []
    for _, part in steps.groupby("name"):
        start = part[part["step"] == 0].iloc[0]
        known = [c for c in ("IRA", "CRA") if not math.isnan(start[c])]
        left = part[known] / start[known]
        best.append([part.loc[(left >= share - 1e-9).all(axis=1), "UA"].max() for share in shares])
    return [statistics.fmean(values) for values in zip(*best, strict=True)]


def names_of(asked):
    """{kind: [name]} of Requests, in their order."""
    return {k: [n for n in dict.fromkeys(plain_name(getattr(r, k)) for r in asked) if n] for k in KINDS}


def said_by_clip(asked):
    """Markdown line of what figures of ClipClassifiers are of, for Requests of the report half."""
    names = names_of(asked)["object"]
    counts = sorted({sum(shows("object", n, asked)) for n in names})
    return (
        f"Judged by the unedited CLIP, zero-shot among {', '.join(names)}; "
        f"{' or '.join(map(str, counts))} pictures of each, in seeds that chose nothing."
    )


def one_line(record):
    """A record of b2_unlearn_sd.py in one line for the terminal."""
    before, after = record["original_select"], record["winner_select"]
    chosen = ", ".join(f"{layer} {step:.4g}" for layer, step in record["chosen"]) or "nothing"
    known = (f"{k} {before[k]:.1%} -> {after[k]:.1%}" for k in Scores._fields if not math.isnan(before[k]))
    return (
        f"{record['kind']} {record['name']}, {record['method']}: {chosen}; select half: {', '.join(known)}; "
        f"{record['n_candidates']} candidates, {record['seconds']:.0f} s, delta {record['delta_bytes'] / 1e3:.0f} kB = "
        f"{record['params_share']:.2%} of the pipeline"
    )


COLUMNS = (
    "method kind name UA IRA CRA FID seconds peak_mem_mb storage_bytes n_images params_share layer step n_candidates seed "
    "inside_grid"
).split()


def tidy(frame):
    """Rows of results/uncanvas/table.csv in DESIGN.md's columns and order."""
    return frame.reindex(columns=COLUMNS).sort_values(["kind", "method", "name"], ascending=[False, True, True])
