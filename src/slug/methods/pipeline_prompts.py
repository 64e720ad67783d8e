"""What SLUG is compared with on Stable Diffusion: each peer edits the UNet, all are judged and chosen alike.

A peer is a generator of candidates (label of the setting, number, edit), an edit being {name in Diffusion.tensors: tensor to
add}; it never looks at an evaluation.
"""

from slug.data.names import plain_name
from slug.evaluation.canvas_prompts import OTHER


def without(request, kind):
    """The prompt of a canvas.Request with the style or the object left out, as what a forgotten concept may become.

    Args:
        kind: what is left out.
    """
    rest = plain_name(getattr(request, OTHER[kind]))
    if kind == "style":
        return f"An {rest} image."
    return f"An image in {rest} style." if rest else "An image."
