"""The step size of each layer, and the winner among all steps of all layers.

The published search doubles a step while the name is still recognised and bisects once it is not. It trusts the latest
answer only; a forget accuracy that rises again with the step, or a first step that already breaks the model, sends it
astray (trap 11). `next_step` looks at all answers so far instead, and shrinks as fast as it grows.
"""

import itertools
import math

FAR = 16  # first steps, 160% of the weights' norm: where none up to here forgets, look below the first step instead


CLOSE = 1.1  # stop bisecting when the bracket is this narrow (ratio of its ends)


def next_step(history, first, *, rule="robust", growth=2, far=FAR, below=True):
    """The step to evaluate next.

    Args:
        history: [(step, forgotten)] so far, in order; `forgotten` is FA@k == 0, and for the robust rule Step.forgets. Where
            it does not forget, the robust rule takes a number below 1 as how far it got.
        first: the first step, used when the history is empty.
        rule: "robust", or "paper" for the published schedule.
        growth: robust only: how many times the last step the next one is while nothing is forgotten.
        far: robust only: a step of so many times the first is the last that is tried upwards. After it comes what lies
            beside the step that got furthest, or below them all where none got further than the smallest.
        below: robust only: False to end the search there instead.
    Returns:
        A step > 0, or None when the bracket is narrow enough (robust only).
    """
    if not history:
        return first
    if rule == "paper":
        low, high = 0.0, math.inf
        for step, forgotten in history:
            low, high = (low, step) if forgotten >= 1 else (step, high)
        return history[-1][0] * 2 if high == math.inf else (low + high) / 2
    forgetting = [s for s, forgotten in history if forgotten >= 1]
    if not forgetting:
        # A step so large that the model knows nothing any more need not read as forgotten.
        tried = sorted(s for s, _ in history)
        if tried[-1] < far * first:
            return growth * tried[-1]
        furthest, _ = max(history, key=lambda h: (h[1], -h[0]))
        if furthest == tried[0]:
            return furthest / 4 if below else None
        gaps = [(high / low, low * high) for low, high in itertools.pairwise(tried) if furthest in (low, high)]
        ratio, product = max(gaps)
        return math.sqrt(product) if ratio > CLOSE else None
    high = min(forgetting)
    low = max((s for s, forgotten in history if forgotten < 1 and s < high), default=None)
    if low is None:  # still forgetting at the smallest step: down by 2, 4, 16, 256, ... the quicker the longer it lasts
        return high / 2 ** (2 ** (len(forgetting) - 1) if len(forgetting) < 4 else 4)
    return math.sqrt(low * high) if high / low > CLOSE else None


def ahead(history, first, depth, *, rule="robust", **reach):
    """The steps that `next_step` may ask for in the next `depth` evaluations, the very next one first."""
    step = next_step(history, first, rule=rule, **reach) if depth else None
    if step is None:
        return []
    later = (ahead([*history, (step, forgotten)], first, depth - 1, rule=rule, **reach) for forgotten in (True, False))
    return list(dict.fromkeys([step, *itertools.chain(*later)]))


def over_layer(evaluate, first, *, evaluations=10, rule="robust", depth=1, **reach):
    """Evaluate up to `evaluations` steps of one layer; yields what `evaluate(step, coming)` returns.

    Args:
        evaluate: (step, steps that may come next, itself among them) -> (result, forgotten as in `next_step`).
        first: first step (layers.first_step).
        reach: `growth`, `far` and `below` of `next_step`.
        depth: evaluations to look ahead, see `ahead`; what is evaluated, and the result, do not depend on it.
    """
    history = []
    while len(history) < evaluations:
        step = next_step(history, first, rule=rule, **reach)
        if step is None or not math.isfinite(step) or step <= 0:
            break
        coming = ahead(history, first, min(depth, evaluations - len(history)), rule=rule, **reach)
        result, forgotten = evaluate(step, coming)
        history.append((step, forgotten))
        yield result
