"""SLUG on one concept: search the step of every layer of the Pareto fronts, keep the winner (paper, section 3)."""

from tqdm import tqdm

from slug.core import layers, search, selection
from slug.core.edit import edit_of, edited_by, union
from slug.models.clip import ALONE

TOGETHER = "together"  # stands for a layer's name where many are moved by one step


def search_all(
    clip,
    judge,
    front,
    forget,
    *,
    evaluations=10,
    rule="robust",
    choose="retain",
    log_all=False,
    depth=1,
    alone=False,
    together=False,
    scale=1.0,
    before=(),
    settled=lambda: False,
    **reach,
):
    """Search the step of every front layer: ({layer: [search.Step]}, the winner's search.Step). A group is searched once.

    Args:
        judge: Judge of the validation split, or canvas.Judge.
        front: [layers.Layer] of both encoders.
        forget: {parameter name: gradient}.
        evaluations, rule, reach: see search.over_layer.
        choose: "retain" for the judge's winner, "deepest" for the paper's rule.
        log_all: score the retain sets at every step, not only where a step forgets and can win.
        depth: evaluations to look ahead: the forget pictures go through all steps that these may ask for in one pass; not
            with `together`.
        alone: search a layer of a group also without the others of its group (models.clip.ALONE behind its name).
        together: one search that moves all layers of the front by one step; its steps carry TOGETHER for a layer's name.
        scale: begin at so many times the first step.
        before: candidates found before, which these have to beat; their groups are not searched again.
        settled: () -> whether no candidate can beat the judge's winner any more, asked after each: the search ends there.
    """
    steps, done, candidates = {}, {clip.group(s.layer) for s in before}, list(before)
    if together:
        groups = [(TOGETHER, union(clip, front))]
    else:
        names = (found.name + end for found in front for end in (("", ALONE) if alone else ("",)))
        groups = ((layer, clip.group(layer)) for layer in names)
    for layer, group in groups:
        if group in done:
            continue
        done.add(group)
        first = scale * layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        edited = edited_by(clip, group) if together else layer
        known = {}

        def evaluate(step, coming, layer=layer, group=group, edited=edited, known=known):
            if step not in known and len(coming) > 1:
                known |= judge.forget_steps(layer, forget, coming)
            with judge.applied(edit_of(clip, group, forget, step)):
                # By the paper's rule a layer that loses overall may still be the deepest: score all that forget.
                best = judge.winner(candidates) if choose == "retain" else None
                row = judge.step(layer, step, edited, best=best, log_all=log_all, known=known.get(step))
            candidates.append(row)
            return row, row.progress(rule)

        steps[layer] = []
        for row in search.over_layer(evaluate, first, evaluations=evaluations, rule=rule, depth=depth, **reach):
            steps[layer].append(row)
            if settled():
                return steps, judge.winner(candidates)
    if choose == "deepest":
        return steps, selection.deepest(candidates, lambda n: layers.depth_order(clip, n))
    return steps, judge.winner(candidates)


def search_fronts(clip, judge, rows, forget, enough, *, fronts, desc, deepest_first=False, **how):
    """Search Pareto front after front until a winner will do: ([step in order], the winner).

    Args:
        rows: layers.figures of all candidates.
        enough: winner -> whether to stop there.
        fronts: how many, at most.
        deepest_first: search a front's layers from the deepest up, where these tend to win: the others are then given up the
            sooner. What is found is the same.
        how: see `search_all`.
    """
    steps, best = [], None
    for number, front in enumerate(layers.all_fronts(rows)[:fronts], 1):
        if deepest_first:
            front = sorted(front, key=lambda found: layers.depth_order(clip, found.name), reverse=True)
        bar = tqdm(front, desc=f"{desc}: front {number}", unit="layer")
        curves, best = search_all(clip, judge, bar, forget, before=steps, **how)
        steps += [s for part in curves.values() for s in part]
        if best is not None and enough(best):
            break
    return steps, best
