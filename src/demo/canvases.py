"""What mini-LLaVA learns: pictures of one to four icons on a tinted canvas, and questions about them with their answers."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from demo import emoji

COLOURS = {
    "red": (0.85, 0.20, 0.20),
    "orange": (0.95, 0.55, 0.15),
    "yellow": (0.97, 0.90, 0.30),
    "green": (0.25, 0.70, 0.35),
    "blue": (0.25, 0.45, 0.90),
    "purple": (0.55, 0.30, 0.75),
    "pink": (0.98, 0.65, 0.80),
    "grey": (0.55, 0.55, 0.55),
}
NUMBERS = ("one", "two", "three", "four")
WHO = ("who or what is this?", "what is this?", "name what you see.", "what does the picture show?")
WORDINGS = {
    "who": WHO,
    "style": ("which style is this drawn in?", "what is the style of this picture?"),
    "colour": ("what colour is the background?", "which colour is behind it?"),
    "count": ("how many things are there?", "how many drawings do you count?"),
    "present": ("is there a {name} here?", "do you see a {name}?", "does the picture show a {name}?"),
}


class Scene(NamedTuple):
    """One picture and one question about it."""

    icons: tuple[int, ...]  # rows of the icons shown, one to four
    colour: str
    kind: str  # of the question: a key of WORDINGS
    question: str
    answer: str


def answers_of(kind, scene_icons, world, colour, rng):
    """(question, answer) of a kind about a picture.

    Args:
        world: (concepts, pictures): emoji.concepts() and emoji.pictures() of them.
    """
    concepts, pictures = world
    shown = [concepts[pictures[i].concept] for i in scene_icons]
    question = str(rng.choice(WORDINGS[kind]))
    if kind == "who":
        return question, shown[0].name.lower()
    if kind == "style":
        return question, emoji.STYLES[pictures[scene_icons[0]].set].lower()
    if kind == "colour":
        return question, colour
    if kind == "count":
        return question, NUMBERS[len(scene_icons) - 1]
    if rng.random() < 0.5:
        return question.format(name=shown[int(rng.integers(len(shown)))].name.lower()), "yes"
    absent = [c for c in concepts if c.kind == shown[0].kind and c not in shown]
    return question.format(name=absent[int(rng.integers(len(absent)))].name.lower()), "no"


def scene(rng, world, rows, kind, icon=None):
    """A random Scene.

    Args:
        rng: numpy Generator.
        world: see `answers_of`.
        rows: icons to choose from, {kind of concept: [row]}; may be None if `icon` is given and shown alone.
        kind: kind of the question.
        icon: the first icon shown; None: a random one.
    """
    # Questions about name or style show one icon: with several it would be unclear which is meant.
    count = 1 if kind in ("who", "style") else int(rng.integers(1, 5))
    if icon is None:
        pool = rows["identity" if rng.random() < 0.25 else "object"]
        icon = int(pool[int(rng.integers(len(pool)))])
    shown = [icon]
    if count > 1:
        group = rows[world[0][world[1][icon].concept].kind]
        shown += [int(group[int(i)]) for i in rng.integers(len(group), size=count - 1)]
    colour = str(rng.choice(list(COLOURS)))
    return Scene(tuple(shown), colour, kind, *answers_of(kind, shown, world, colour, rng))


def drawn(draw, count):
    """`count` Scenes from calls of `draw`, with as many answers yes as no."""
    left, out = {"yes": count // 2, "no": count - count // 2}, []
    while len(out) < count:
        found = draw()
        if left.get(found.answer, 1):
            out.append(found)
            if found.answer in left:
                left[found.answer] -= 1
    return out


def conversation(rng, world, rows, several):
    """Four random Scenes about one picture; see `scene`.

    Args:
        several: fraction of pictures that may show several icons, and get no question about name or style.
    """
    if rng.random() >= several:
        kinds = ["who", "present", "style", str(rng.choice(("present", "present", "colour", "count")))]
    else:
        kinds = ["present", "present", "present", str(rng.choice(("colour", "count")))]
    first = scene(rng, world, rows, kinds[0])
    rest = (Scene(first.icons, first.colour, k, *answers_of(k, first.icons, world, first.colour, rng)) for k in kinds[1:])
    return [first, *rest]


def paint(icons, scenes, rng, size=emoji.SIZE, *, wider=False):
    """Pictures (N, 3, size, size) float in [0, 1] of Scenes.

    Args:
        icons: (M, 4, H, H) uint8, see emoji.icons.
        wider: for training only: icons are turned further, stretched, and recoloured.
    """
    n, turned = len(scenes), 17 if wider else 10
    tint = torch.tensor([COLOURS[s.colour] for s in scenes]) + torch.from_numpy(rng.normal(0, 0.03, (n, 3))).float()
    out = tint.clamp(0, 1)[:, :, None, None].expand(n, 3, size, size).clone()
    places = np.array([rng.permutation(4) for _ in scenes])
    for k in range(4):
        mine = [i for i, s in enumerate(scenes) if len(s.icons) > k]
        if not mine:
            break
        alone = np.array([len(scenes[i].icons) == 1 for i in mine])
        scale = np.where(alone, rng.uniform(0.75, 1.05, len(mine)), rng.uniform(0.42, 0.5, len(mine)))
        spread = np.where(alone, 0.12, 0.04)[:, None] * rng.uniform(-1, 1, (len(mine), 2))
        corner = np.stack([places[mine, k] % 2, places[mine, k] // 2], 1) - 0.5
        centre = np.where(alone[:, None], 0, corner) + spread
        turn, mirror = np.deg2rad(rng.uniform(-turned, turned, len(mine))), np.where(rng.random(len(mine)) < 0.5, -1, 1)
        cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
        theta = np.stack([np.stack([cos * mirror, -sin * mirror], 1), np.stack([sin, cos], 1)], 1)
        if wider:
            theta[:, :, 0] *= rng.uniform(0.88, 1.12, (len(mine), 1))
        theta = np.concatenate([theta, -theta @ centre[:, :, None]], 2)
        grid = F.affine_grid(torch.from_numpy(theta).float(), (len(mine), 4, size, size), align_corners=False)
        batch = icons[[scenes[i].icons[k] for i in mine]].float() / 255
        x = F.grid_sample(batch, grid, padding_mode="zeros", align_corners=False)
        rgb, alpha = x[:, :3], x[:, 3:]
        if wider:
            mixing = np.eye(3) * rng.uniform(0.8, 1.2, (len(mine), 3, 1)) + rng.normal(0, 0.08, (len(mine), 3, 3))
            rgb = torch.einsum("nij,njhw->nihw", torch.from_numpy(mixing).float(), rgb).clamp(0, 1)
        out[mine] = rgb + out[mine] * (1 - alpha)
    light = torch.from_numpy(1 + rng.uniform(-0.08, 0.08, (n, 1, 1, 1))).float()
    return (out * light).clamp(0, 1)


def words(concepts):
    """Every word of the questions and answers, sorted."""
    texts = [c.name for c in concepts] + [*emoji.STYLES.values(), *COLOURS, *NUMBERS, "yes no user assistant : . , ? ' -"]
    texts += [w for wordings in WORDINGS.values() for w in wordings]
    return sorted({w for t in texts for w in split(t)})


def split(text):
    """Words and punctuation of a text in lower case, as the tokenizer splits it."""
    from tokenizers import normalizers, pre_tokenizers

    lowered = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]).normalize_str(text)
    return [w for w, _ in pre_tokenizers.Sequence([pre_tokenizers.Whitespace()]).pre_tokenize_str(lowered)]
