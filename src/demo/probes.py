"""Probes of what an assistant still says of a forgotten name: the name asked for in other ways than by a plain question.

Their kinds are those of slug.evaluation.questions.PROBES. The words of indirect questions are new to mini-LLaVA: a probe
that the unedited model fails says nothing of an edit.
"""

from typing import NamedTuple

from demo import canvases

WORDINGS = ("what do you see?", "what is drawn in this picture?", "what is it called?", "name the thing in the picture.")
CAPTIONS = ("this is a {name}. what is this?", "the caption of this picture is: {name}. what does it show?")
YES_NO = ("is this a {name}?", "is there a {name} here?")
FACTS = {  # indirect questions, each with one name as its answer; in lower case, as all that mini-LLaVA reads
    "crab": "which animal with this name walks sideways?",
    "elephant": "which animal with this name has a trunk?",
    "frog": "which animal with this name was a tadpole?",
    "lion": "which animal with this name has a mane?",
    "owl": "which animal with this name hunts at night?",
    "penguin": "which bird with this name cannot fly?",
    "police officer": "who with this title catches thieves?",
    "princess": "who with this title is the daughter of a king?",
    "tiger": "which animal with this name has stripes?",
}
GROUPS = 12  # pictures of two to four icons for each name
OWN, OTHERS = 2, 5  # of so many pictures of the names, and of other identities, one is probed


class Probe(NamedTuple):
    """A question of a probe; fields as of questions.Question."""

    task: str
    text: str
    answer: str
    asks: str


def of_picture(name, absent):
    """The Probes of a picture that shows a name alone, and nothing of the name `absent`."""
    found = [Probe("probe_yes_no", text.format(name=name), "yes", name) for text in YES_NO]
    found += [Probe("probe_yes_no", text.format(name=absent), "no", absent) for text in YES_NO]
    found += [Probe("probe_wording", text, name, name) for text in WORDINGS]
    found += [Probe("probe_caption", text.format(name=name), name, name) for text in CAPTIONS]
    return found + ([Probe("probe_indirect", FACTS[name], name, name)] if name in FACTS else [])


def of_group(names):
    """The Probes of a picture that shows several names."""
    found = [Probe("probe_group", canvases.WHO[2], name, name) for name in names]
    return found + [Probe("probe_group_yes_no", YES_NO[1].format(name=name), "yes", name) for name in names]


def of_text(name):
    """The Probes without a picture."""
    return [Probe("probe_text_only", FACTS[name], name, name)] if name in FACTS else []


def groups(rng, world, own, others):
    """GROUPS Scenes of two, three and four icons in turn: one of the rows `own`, and icons of other names of the rows
    `others`."""
    concepts, pictures = world
    out = []
    for number in range(GROUPS):
        shown = [own[number % len(own)]]
        for i in rng.permutation(len(others)):
            if len(shown) == 2 + number % 3:
                break
            if pictures[others[i]].concept not in {pictures[k].concept for k in shown}:
                shown.append(others[int(i)])
        colour = str(rng.choice(list(canvases.COLOURS)))
        out.append(canvases.Scene(tuple(shown), colour, "group", "", concepts[pictures[shown[0]].concept].name.lower()))
    return out
