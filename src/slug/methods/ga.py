"""GA: ascend the forget loss on the forget set, that is, descend -(1 - cos)."""

from slug.methods import CLIP, Method, register_forms


def passes(material):
    """The passes of one epoch."""
    from slug.core import losses
    from slug.methods._training import Pass

    loss = losses.contrastive if material.variant.contrastive else losses.cosine_embedding
    return [Pass(material.forget, loss, -1)]


def candidates(clip, material, schedule):
    """Yield after each epoch."""
    from slug.methods._training import train

    yield from train(clip, passes(material), schedule)


CITED = "gradient ascent on the forget set, as in Table 1 of the SLUG paper"
register_forms(Method("ga", "GA", CITED, (CLIP,), 21, candidates, setting="lr", trains=True, epochs="forget_epochs"))
