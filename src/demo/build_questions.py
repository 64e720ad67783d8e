"""Write the questions that mini-LLaVA is evaluated with: pictures of EmojiCanvas and questions about them, in two splits.

Example: python src/demo/build_questions.py
Writes data/demo/vlm/questions.jsonl and its pictures. Drawings, not pictures, are assigned to the validation and the test
split. Drawings that training never saw are marked as unseen: those of the forget names are in both splits, all others in the
test split. The forget names are asked for in every wording. If a forget name has an odd number of drawings that training
saw, the validation split has one more than the test split; of unseen drawings the test split has one more. Pictures of the
test split also have the questions of src/demo/probes.py.
"""

import argparse
import hashlib
import json
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import numpy as np
from PIL import Image

from demo import canvases, emoji, probes
from slug import cli, files, progress
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import questions

TIMES = 4  # pictures of each drawing of a forget name, each with every wording
UTILITY = 100  # questions of each kind in each split


def forget_names():
    """The demo's forget names, spelled as in concepts.csv."""
    lines = files.read_text(emoji.DATA / "forget_names.txt").splitlines()
    return [plain_name(line).lower() for line in lines if line.strip() and not line.startswith("#")]


def unnamed(rng, world, rows, kind, names):
    """A canvases.scene whose question contains none of `names`."""
    while True:
        found = canvases.scene(rng, world, rows, kind=kind)
        if not any(name in found.question for name in names):
            return found


def scenes(world, seed, wanted):
    """[(Scene, [question], split, seen)]: questions about one picture, in one wording or in several.

    Naming questions cover all drawings of the forget names and of the other identities, and one drawing that training saw of
    each other object. All other questions are about drawings that training saw, and neither say nor show a forget name.

    Args:
        world: (concepts, pictures), see canvases.answers_of.
        wanted: the forget names, in lower case.
    """
    concepts, pictures = world
    rng = np.random.default_rng([seed, 21])
    by_concept = {}
    for i, p in enumerate(pictures):
        by_concept.setdefault(p.concept, {}).setdefault(p.drawing, []).append(i)
    splits = {
        split: {"identity": [], "object": []} for split in ("validation", "test")
    }  # icons of drawings that training saw
    out = []
    for concept, drawings in by_concept.items():
        seen = [d for d, rows in drawings.items() if pictures[rows[0]].seen]
        order = [seen[i] for i in rng.permutation(len(seen))]
        kind, forget = concepts[concept].kind, concepts[concept].name.lower() in wanted
        # An edit may forget one drawing and leave another: the validation split needs two or three drawings to tell.
        count = len(order) // 2 + (len(order) % 2 and (rng.random() < 0.5 or forget))
        split = {d: "validation" if i < count else "test" for i, d in enumerate(order)}
        for drawing in order if not forget else ():
            splits[split[drawing]][kind] += drawings[drawing]
        # Unseen drawings of other names are seldom recognised and would only slow the search down.
        unseen = [d for d in drawings if d not in split] if forget else []
        apart = [unseen[i] for i in np.random.default_rng([seed, 23, concept]).permutation(len(unseen))]
        placed = split | {d: "validation" for d in apart[: len(apart) // 2]}
        asked = list(drawings) if kind == "identity" or forget else [order[int(rng.integers(len(order)))]]
        for drawing in asked:
            rows = drawings[drawing]
            for number in range(TIMES if forget else 1):
                found = canvases.scene(rng, world, None, kind="who", icon=rows[number % len(rows)])
                texts = canvases.WHO if forget else [found.question]
                out.append((found, texts, placed.get(drawing, "test"), drawing in split))
    for part, rows in splits.items():
        for kind in ("style", "colour", "count", "present"):
            for found in canvases.drawn(lambda kind=kind, rows=rows: unnamed(rng, world, rows, kind, wanted), UTILITY):
                out.append((found, [found.question], part, True))
    return out


def group_scenes(world, asked, seed, wanted):
    """As `scenes`: pictures of several icons, each with one forget name among others; their questions are probes alone."""
    concepts, pictures = world
    alone = [(s.icons[0], seen) for s, _, split, seen in asked if s.kind == "who" and split == "test"]
    own, others, rng = {}, [], np.random.default_rng([seed, 24])
    for icon, seen in dict.fromkeys(alone):
        if (name := concepts[pictures[icon].concept].name.lower()) in wanted:
            own.setdefault(name, []).append(icon)
        elif seen:
            others.append(icon)
    found = [scene for name in own for scene in probes.groups(rng, world, own[name], others)]
    return [(scene, [], "test", pictures[scene.icons[0]].seen) for scene in found]


def probed(world, asked, seed, wanted):
    """[[Probe]] of each of `scenes` and `group_scenes`: of the forget names, and of some of the other identities."""
    concepts, pictures = world
    rng, counts, out = np.random.default_rng([seed, 25]), {True: 0, False: 0}, []
    rest = [c.name.lower() for c in concepts if c.kind == "identity" and c.name.lower() not in wanted]
    for scene, _, split, _ in asked:
        names = [concepts[pictures[i].concept].name.lower() for i in scene.icons]
        found, alone = [], split == "test" and scene.kind == "who"
        if scene.kind == "group":
            found = probes.of_group(names)
        elif alone and concepts[pictures[scene.icons[0]].concept].kind == "identity":
            own = names[0] in wanted
            others = [n for n in rest if n != names[0]]
            if others and counts[own] % (probes.OWN if own else probes.OTHERS) == 0:
                found = probes.of_picture(names[0], others[int(rng.integers(len(others)))])
            counts[own] += 1
        out.append(found)
    return out


def digest(seed):
    """Hash of everything the questions depend on."""
    sources = [
        *emoji.sources(),
        emoji.DATA / "forget_names.txt",
        Path(emoji.__file__),
        Path(canvases.__file__),
        Path(probes.__file__),
        Path(__file__),
    ]
    return hashlib.sha256(json.dumps([seed, *(files.file_hash(p) for p in sources)]).encode()).hexdigest()


def build(out, *, names=None, seed=0, limit=None, force=False, progress=progress.bar):
    """Write the folder `out`, unless it is up to date.

    Args:
        names: names that are asked for in every wording; None: forget_names().
        limit: only this many concepts of each kind.
    Raises:
        SlugError: no concept has one of the names.
    """
    wanted = {plain_name(n).lower() for n in names} if names else set(forget_names())
    mark = {"digest": digest(seed), "limit": limit, "names": sorted(wanted)}
    if not force and (out / "source.json").is_file() and files.read_json(out / "source.json") == mark:
        return
    concepts = emoji.concepts()
    if unknown := sorted(wanted - {c.name.lower() for c in concepts}):
        raise SlugError(f"no concept is named {', '.join(unknown)}; data/emoji/concepts.csv has the names")
    if limit:
        kinds = {k: [c for c in concepts if c.kind == k] for k in ("identity", "object")}
        kept = {c.name for cs in kinds.values() for c in sorted(cs, key=lambda c: c.name.lower() not in wanted)[:limit]}
        concepts = [c for c in concepts if c.name in kept]
    pictures = emoji.pictures(concepts)
    world = concepts, pictures
    asked = scenes(world, seed, wanted)
    asked += group_scenes(world, asked, seed, wanted)
    icons = emoji.icons(concepts, progress=progress)
    rng = np.random.default_rng([seed, 22])
    found = [
        questions.Question("", p.text, p.answer, p.task, asks=p.asks) for n in sorted(wanted) for p in probes.of_text(n)
    ]
    more = probed(world, asked, seed, wanted)
    with files.replacing_folder(out) as temporary:
        (temporary / "pictures").mkdir(parents=True)
        both = zip(progress(asked, desc="pictures"), more, strict=True)
        for number, ((scene, texts, split, seen), probing) in enumerate(both):
            image = temporary / f"pictures/{number:05d}.png"
            x = canvases.paint(icons, [scene], rng)[0]
            Image.fromarray((x * 255).round().byte().permute(1, 2, 0).numpy()).save(image)
            first = pictures[scene.icons[0]]
            named = scene.kind in ("who", "style", "group")
            about = (concepts[first.concept].name, first.drawing) if named else ("", "")
            rest = (*about, split, seen, concepts[first.concept].kind)
            found += [questions.Question(str(image), t, scene.answer, scene.kind, *rest) for t in texts]
            found += [questions.Question(str(image), p.text, p.answer, p.task, *rest, asks=p.asks) for p in probing]
        questions.write(temporary / "questions.jsonl", found)
        files.write_json(temporary / "source.json", mark)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default="data/demo/vlm", help="folder to write")
    parser.add_argument(
        "--name", nargs="+", help="names asked for in every wording; without it those of data/emoji/forget_names.txt"
    )
    parser.add_argument("--seed", type=cli.within(cli.Seed), default=0, help="seed of pictures, questions and splits")
    parser.add_argument("--force", action="store_true", help="write again even if up to date")
    args = parser.parse_args(argv)
    out = files.resolve(args.out)
    build(out, names=args.name, seed=args.seed, force=args.force)
    found = questions.read(out / "questions.jsonl")
    print(f"{len(found)} questions about {len({q.image for q in found})} pictures -> {out}")


if __name__ == "__main__":
    cli.exit_with(main)
