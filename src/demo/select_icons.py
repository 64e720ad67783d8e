"""Choose the concepts of EmojiCanvas and pack their icons into data/emoji/. For maintainers; users never run it.

Reads nine icon sets unpacked from the npm packages `@iconify-json/<set>` (icons.json, info.json and, in some, chars.json)
and writes `<set>.json.gz` (SVG bodies), `concepts.csv` (names, kinds, aliases, splits) and `sets.csv` (licences).

Example: for s in noto noto-v1 twemoji fluent-emoji fluent-emoji-flat openmoji emojione emojione-v1 fxemoji; do
             npm pack @iconify-json/$s && mkdir -p icons/$s && tar xzf iconify-json-$s-*.tgz -C icons/$s --strip-components 1
         done; python src/demo/select_icons.py --icons icons
"""

import argparse
import collections
import csv
import gzip
import json
import re
from pathlib import Path

import numpy as np

from demo import emoji

IDENTITIES = """
bear cat dog cow horse pig tiger rabbit monkey mouse dragon whale camel ant bat bird blowfish boar bug butterfly chicken
rooster turkey hatching-chick baby-chick chipmunk crab pile-of-poo crocodile deer dolphin dove duck eagle elephant ewe fish
tropical-fish fox frog goat gorilla hamster honeybee koala lady-beetle leopard lion lizard octopus owl ox panda penguin
poodle ram rat rhinoceros scorpion shark snail snake spider turtle unicorn wolf water-buffalo squid
santa-claus mrs-claus prince princess detective guard police-officer construction-worker baby-angel baby snowboarder girl
old-man old-woman man-dancing woman-dancing person-wearing-turban person-with-skullcap person-with-veil
person-in-suit-levitating people-with-bunny-ears pregnant-woman goblin ogre ghost robot alien alien-monster clown-face
snowman skier moai
""".split()

# Left out: second drawings or second words for a concept, mirror images (renderings are flipped), sizes and flag positions
# of one sign, and buttons whose meaning is a word in a script that the model cannot read.
TWINS = """
cat-face cow-face dog-face dragon-face horse-face monkey-face mouse-face pig-face rabbit-face tiger-face spouting-whale
two-hump-camel front-facing-baby-chick man woman family men-holding-hands women-holding-hands
woman-and-man-holding-hands snowman-without-snow oncoming-automobile oncoming-bus oncoming-police-car oncoming-taxi
backhand-index-pointing-left backhand-index-pointing-right right-facing-fist magnifying-glass-tilted-right
last-quarter-moon last-quarter-moon-face waning-crescent-moon waning-gibbous-moon waxing-crescent-moon
left-arrow right-arrow up-arrow down-arrow up-left-arrow up-right-arrow down-left-arrow down-right-arrow left-right-arrow
up-down-arrow left-arrow-curving-right right-arrow-curving-left right-arrow-curving-up right-arrow-curving-down
fast-reverse-button fast-down-button reverse-button last-track-button downwards-button red-triangle-pointed-down
small-blue-diamond small-orange-diamond black-medium-small-square black-medium-square black-small-square
white-medium-small-square white-medium-square white-small-square closed-mailbox-with-lowered-flag
open-mailbox-with-lowered-flag closed-mailbox-with-raised-flag speaker-low-volume speaker-medium-volume
globe-showing-asia-australia globe-showing-europe-africa sun-behind-large-cloud sun-behind-small-cloud hourglass-not-done
kiss left-speech-bubble clinking-beer-mugs tram-car mobile-phone-with-arrow train double-curly-loop
white-exclamation-mark white-question-mark fork-and-knife-with-plate house-with-garden check-box-with-check
chart-increasing-with-yen grinning-face-with-big-eyes frowning-face-with-open-mouth repeat-single-button
envelope-with-arrow incoming-envelope musical-note unlocked bell-with-slash mobile-phone-off red-apple
foggy sunrise-over-mountains cloud-with-lightning-and-rain umbrella camera-with-flash notebook locked-with-pen
a-button-blood-type ab-button-blood-type b-button-blood-type o-button-blood-type clinking-glasses
cricket slightly-smiling-face smiling-face-with-smiling-eyes new-moon-face full-moon-face black-square-button tornado
""".split()

ALIASES = {
    "santa-claus": "Father Christmas",
    "mrs-claus": "Mother Christmas",
    "honeybee": "bumblebee",
    "lady-beetle": "ladybug",
    "construction-worker": "builder",
    "police-officer": "constable",
    "detective": "sleuth",
    "person-with-veil": "bride",
    "person-in-suit-levitating": "hovering businessman",
    "people-with-bunny-ears": "bunny girls",
    "goblin": "tengu",
    "ogre": "oni",
    "alien": "extraterrestrial",
    "alien-monster": "space invader",
    "moai": "Easter Island head",
    "pile-of-poo": "dung heap",
    "crocodile": "alligator",
    "blowfish": "pufferfish",
    "ewe": "sheep",
    "baby-angel": "cherub",
    "woman-dancing": "flamenco dancer",
    "automobile": "motor car",
    "doughnut": "donut",
    "french-fries": "chips",
    "hamburger": "cheeseburger",
    "television": "telly",
    "spaghetti": "pasta",
    "mobile-phone": "smartphone",
    "laptop": "notebook computer",
    "soccer-ball": "football",
    "top-hat": "stovepipe hat",
    "jack-o-lantern": "Halloween pumpkin",
    "eggplant": "aubergine",
    "ear-of-corn": "maize",
    "airplane": "aeroplane",
    "baguette-bread": "French stick",
    "christmas-tree": "Xmas tree",
    "fire-engine": "fire truck",
    "skull-and-crossbones": "Jolly Roger",
    "locomotive": "steam engine",
    "statue-of-liberty": "Lady Liberty",
}
DROPPED = re.compile(r"oclock|thirty|keycap|japanese-.*-button|-button$|1f3f|^letter-")
MIN_HOUSES = 6  # with fewer houses a concept cannot leave out three drawings and still be learned
WIDE_OBJECTS = 40  # objects that leave out three drawings, as every identity does
SEED = 20240711


def read_sets(icons):
    """The npm packages: ({set: icons.json}, {set: {code point sequence: icon name}})."""
    sets = {s: json.loads((icons / s / "icons.json").read_text()) for s in emoji.STYLES}
    chars = {s: json.loads((icons / s / "chars.json").read_text()) for s in emoji.STYLES}
    return sets, chars


def resolve(data, name):
    """The icon with a body that the set's aliases lead to; None if there is none."""
    for _ in range(5):
        if name in data["icons"]:
            return name
        name = data.get("aliases", {}).get(name, {}).get("parent")
    return None


def match_concepts(sets, chars):
    """One concept for each code point: {CLDR name: {set: icon}}. Sets without code points are matched by all its names."""
    by_code = collections.defaultdict(dict)
    for s, table in chars.items():
        for code, name in table.items():
            icon = resolve(sets[s], name)
            if icon:
                by_code["-".join(c for c in code.split("-") if c != "fe0f")][s] = (name, icon)
    names_of = {s: collections.defaultdict(set) for s in sets}
    for s, data in sets.items():
        for name in data.get("aliases", {}):
            names_of[s][resolve(data, name)].add(name)
    concepts = {}
    for code, found in by_code.items():
        if "noto" not in found or re.search("200d|1f3f|20e3", code):
            continue
        name = found["noto"][0]
        names = {n for pair in found.values() for n in pair}.union(*(names_of[s][i] for s, (_, i) in found.items()))
        icons = {s: icon for s, (_, icon) in found.items()}
        for s in sets.keys() - icons.keys():
            icon = next(filter(None, (resolve(sets[s], n) for n in [name, *sorted(names)])), None)
            if icon:
                icons[s] = icon
        if len({emoji.house(s) for s in icons}) >= MIN_HOUSES:
            concepts[name] = icons
    return concepts


def svg(data, icon):
    """A whole SVG document of one icon of an icons.json."""
    entry = data["icons"][icon]
    width = entry.get("width", data.get("width", 16))
    height = entry.get("height", data.get("height", 16))
    left, top = entry.get("left", 0), entry.get("top", 0)
    return emoji.svg_document(entry["body"], (left, top, width, height))


def choose_left_out(concepts, thumbs, rng):
    """Drawings that training never sees: three of each identity and wide object, one of every other object.

    A drawing may be left out only if its correlation with every other drawing is at most 0.9, so that training sees no near
    copy of it. Returns ({name: [house]}, [names of wide objects]).
    """
    keys = list(thumbs)
    flat = np.stack([thumbs[k] for k in keys])
    group = np.array([f"{n}/{emoji.house(s)}" for n, s in keys])
    free = collections.defaultdict(lambda: True)
    for i in range(0, len(keys), 500):
        corr = flat[i : i + 500] @ flat.T
        corr[group[i : i + 500, None] == group[None]] = -1
        for key, top in zip(keys[i : i + 500], corr.max(1), strict=True):
            free[key[0], emoji.house(key[1])] &= bool(top <= emoji.MAX_CORRELATION)
    houses = {n: sorted({emoji.house(s) for s in icons if free[n, emoji.house(s)]}) for n, icons in concepts.items()}
    wide_able = sorted(n for n in concepts if n not in IDENTITIES and len(houses[n]) >= 3 and len(concepts[n]) >= 8)
    wide = sorted(rng.choice(wide_able, WIDE_OBJECTS, replace=False).tolist())
    left = {}
    for name in sorted(concepts):
        count = 3 if name in IDENTITIES or name in wide else 1
        if len(houses[name]) < count:
            raise SystemExit(f"{name}: only {houses[name]} can be left out, {count} are needed; remove it from the list")
        left[name] = sorted(rng.choice(houses[name], count, replace=False).tolist())
    return left, wide


def mirror_copies(left, thumbs):
    """{name: [house]}: left-out drawings whose correlation with a mirrored training drawing is above 0.9.

    Training and renderings flip pictures, so training would see near copies of these; they are dropped from the world.
    """
    train = np.stack([t for (n, s), t in thumbs.items() if emoji.house(s) not in left[n]])
    mirrored = train.reshape(-1, 16, 16, 3)[:, :, ::-1].reshape(len(train), -1)
    dropped = collections.defaultdict(set)
    for (name, s), thumb in thumbs.items():
        if emoji.house(s) in left[name] and (mirrored @ thumb).max() > emoji.MAX_CORRELATION:
            dropped[name].add(emoji.house(s))
    return dropped


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--icons", type=Path, required=True, help="folder with one unpacked npm package for each set")
    args = parser.parse_args()
    sets, chars = read_sets(args.icons)
    concepts = match_concepts(sets, chars)
    missing = [n for n in IDENTITIES if n not in concepts]
    unknown = [n for n in ALIASES if n not in concepts]
    if missing or unknown:
        raise SystemExit(f"not drawn by {MIN_HOUSES} houses: {missing}; aliases without a concept: {unknown}")
    concepts = {n: c for n, c in concepts.items() if n in IDENTITIES or not (n in TWINS or DROPPED.search(n))}

    thumbs = {}
    for name, icons in concepts.items():
        for s, icon in icons.items():
            thumb = emoji.thumbnail(emoji.rasterise(svg(sets[s], icon), 32))
            if thumb is not None:  # some sets have an empty picture for a name
                thumbs[name, s] = thumb
    concepts = {n: {s: i for s, i in icons.items() if (n, s) in thumbs} for n, icons in concepts.items()}
    rng = np.random.default_rng(SEED)
    # Drop objects whose drawings all resemble others (plain circles, for instance): they cannot be tested.
    while True:
        try:
            left, wide = choose_left_out(concepts, thumbs, np.random.default_rng(SEED))
            break
        except SystemExit as err:
            name = str(err).split(":")[0]
            if name in IDENTITIES:
                raise
            print("dropped:", err)
            del concepts[name]
            thumbs = {k: v for k, v in thumbs.items() if k[0] != name}

    objects = [n for n in sorted(concepts) if n not in IDENTITIES and n not in wide]
    blocks = wide + rng.permutation(objects).tolist()  # the first block of 300 starts with the wide objects
    emoji.DATA.mkdir(parents=True, exist_ok=True)
    dropped = mirror_copies(left, thumbs)
    with (emoji.DATA / "concepts.csv").open("w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["name", "kind", "alias", "block", "sets", "left_out", "dropped"])
        for name in sorted(concepts):
            identity = name in IDENTITIES
            out.writerow(
                [
                    name.replace("-", " "),
                    "identity" if identity else "object",
                    ALIASES.get(name, ""),
                    "" if identity else blocks.index(name) // emoji.BLOCK,
                    " ".join(s for s in emoji.STYLES if s in concepts[name]),
                    " ".join(left[name]),
                    " ".join(sorted(dropped[name])),
                ]
            )
    with (emoji.DATA / "sets.csv").open("w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["set", "style", "pictures", "version", "author", "source", "licence", "licence_url"])
        for s, style in emoji.STYLES.items():
            info = json.loads((args.icons / s / "info.json").read_text())
            package = json.loads((args.icons / s / "package.json").read_text())
            count = sum(s in icons for icons in concepts.values())
            row = [s, style, count, package["version"], info["author"]["name"], info["author"]["url"]]
            out.writerow([*row, info["license"]["spdx"], info["license"]["url"]])
            bodies = {n.replace("-", " "): svg(sets[s], icons[s]) for n, icons in sorted(concepts.items()) if s in icons}
            with gzip.GzipFile(emoji.DATA / f"{s}.json.gz", "wb", mtime=0) as z:
                z.write(json.dumps(bodies, sort_keys=True, ensure_ascii=False).encode())
    print(f"{len(concepts)} concepts, {len(thumbs)} pictures -> {emoji.DATA}")


if __name__ == "__main__":
    main()
