"""FT: descend the contrastive loss on the retain set. It does not depend on the name to forget."""

from slug.methods import CLIP, Method, register


def passes(material):
    """The passes of one epoch."""
    from slug.core.losses import contrastive
    from slug.methods._training import Pass

    return [Pass(material.retain, contrastive, +1)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    from slug.methods._training import train

    yield from train(clip, passes(material), schedule)


CITED = "fine-tuning on the retain set, as in Table 1 of the SLUG paper"
register(Method("ft", "FT", CITED, (CLIP,), 20, candidates, setting="lr", trains=True, shared=True))
