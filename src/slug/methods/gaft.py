"""GAFT: in each epoch GA's pass over the forget set, then FT's pass over the retain set."""

from slug.methods import CLIP, Method, ft, ga, register_forms


def passes(material):
    """The passes of one epoch."""
    return [*ga.passes(material), *ft.passes(material)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    from slug.methods._training import train

    yield from train(clip, passes(material), schedule)


CITED = "gradient ascent and fine-tuning in turn, as in Table 1 of the SLUG paper"
register_forms(Method("gaft", "GAFT", CITED, (CLIP,), 22, candidates, setting="lr", trains=True))
