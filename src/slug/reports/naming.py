"""The order and the labels of methods in tables, from the registry."""

from collections.abc import Iterable

from slug import methods, schema

WORDS = {
    schema.ORIGINAL: "unedited model",
    "ft": "fine-tuning (FT)",
    "ga": "gradient ascent (GA)",
    "gaft": "ascent and fine-tuning (GAFT)",
    "salun": "saliency unlearning (SalUn)",
    "ssd": "synaptic dampening (SSD)",
    "ccup": "name projected out (CCUP)",
    "kodge": "forget directions projected out (Kodge et al.)",
    "tsa": "name sent to the empty prompt (TSA)",
    "esd": "erased diffusion (ESD)",
    "uce": "unified concept editing (UCE)",
    "rece": "reliable concept erasing (RECE)",
    "speed": "null-space editing, after the paper's description (SPEED)",
    "oce": "orthogonal erasing, after the paper's description (OCE)",
}  # {method: its label in words}


def in_order(found: Iterable[str]) -> list[str]:
    """The methods that occur, in the registry's order: the unedited model first, unknown methods last.

    A method's edits as an adapter follow the method.
    """
    known = {name: i for i, name in enumerate([schema.ORIGINAL, *methods.names()])}

    def place(method: str) -> tuple[int, bool, str]:
        base = method.removesuffix(schema.ADAPTER)
        return known.get(base, len(known)), base != method, method

    return sorted(set(found), key=place)


def label(method: str) -> str:
    """A method's label; of one that the registry does not know its name."""
    return methods.get(method).label if method in methods.names() else method


def in_words(method: str) -> str:
    """A method's label in words, for a table that is read on its own."""
    return WORDS.get(method, label(method))
