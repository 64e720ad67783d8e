"""Plots of the records. Everything is told apart by marker and line style too, so that it reads in grey."""

import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from slug import files

plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 150, "savefig.bbox": "tight"})
MARKERS = "osD^vP*Xhd<>p"
STYLES = ("-", "--", "-.", ":")


def short(layer):
    """A layer's name as a label: `visual.transformer.resblocks.9.attn.out_proj.weight` -> `9.attn.out_proj`."""
    name = layer.removesuffix(".weight")
    for part in ("visual.", "transformer.", "resblocks.", "vision_model.", "text_model.", "encoder.", "layers."):
        name = name.replace(part, "")
    return name.replace("in_proj_weight", "in_proj").replace("self_attn", "attn") or layer


def save(figure, stem, dpi=None):
    """Write stem.pdf and stem.png; `dpi` of the latter."""
    for kind in ("pdf", "png"):
        with files.replacing(stem.with_name(f"{stem.name}.{kind}")) as temporary:
            metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
            figure.savefig(temporary, format=kind, metadata=metadata, dpi=dpi or "figure")
    plt.close(figure)


def pareto(rows, front, chosen, title, stem):
    """Importance against |alignment| of one encoder's layers, the front joined up and named.

    Args:
        rows, front: [layers.Layer].
        chosen: name of the winner layer, or None if it is in the other encoder.
    """
    figure, axes = plt.subplots(figsize=(6.2, 4.4))
    axes.scatter(
        [abs(r.alignment) for r in rows],
        [r.importance for r in rows],
        s=18,
        facecolors="none",
        edgecolors="0.55",
        label=f"all layers ({len(rows)})",
    )
    line = sorted(front, key=lambda r: abs(r.alignment))
    x, y = [abs(r.alignment) for r in line], [r.importance for r in line]
    axes.plot(x, y, "-o", color="C0", ms=5, lw=1.2, label=f"Pareto front ({len(front)})")
    for r in line:
        if r.name == chosen:
            axes.plot(abs(r.alignment), r.importance, "*", color="C3", ms=15, label="winner", zorder=5)
    axes.set_yscale("log")
    axes.set_xlabel("|cosine of forget and retain gradient|  (alignment)")
    axes.set_ylabel("forget gradient norm / weight norm  (importance)")
    axes.set_title(title)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)
    _label_points(axes, x, y, [short(r.name) for r in line])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False)
    save(figure, stem)


def _label_points(axes, x, y, labels):
    """Name points beside the axes' right edge, each as near its own height as no two labels touch, joined to its point."""
    order = np.argsort(y)
    own = axes.transAxes.inverted().transform(axes.transData.transform(np.c_[x, y]))[order, 1]
    gap = min(0.065, 0.96 / len(labels))
    lowest = np.maximum.accumulate(own - gap * np.arange(len(own))) + gap * np.arange(len(own))  # pushed up by those below
    heights = np.minimum(lowest, 0.98 - gap * np.arange(len(own))[::-1])
    for place, i in zip(heights, order, strict=True):
        axes.annotate(
            labels[i],
            (x[i], y[i]),
            xytext=(1.03, place),
            textcoords=("axes fraction", "axes fraction"),
            va="center",
            fontsize=7.5,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.6"},
            annotation_clip=False,
        )


def tower(layer):
    """Which tower a layer is of, as a label."""
    return "vision" if layer.startswith("vis") else "text"


def steps(curves, baseline, winner, counts, title, stem, trace_count=0):
    """Forget and retain accuracy against the step of every searched layer.

    Where a step was not worth scoring all retain pictures, the unedited accuracy plus the change on its trace pictures
    stands, hollow.

    Args:
        curves: {layer: [search.Step]}.
        baseline: search.Step of the unedited model.
        winner: search.Step.
        counts: {"forget", "identities", "objects"} -> number of pictures.
        trace_count: number of trace pictures a retain task.
    """
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), sharex=True)
    parts = (("forget_acc1", "forgotten name"), ("identities_acc1", "other identities"), ("objects_acc1", "objects"))
    for panel, (column, what) in zip(panels, parts, strict=True):
        count = counts[column.removesuffix("_acc1")]
        for i, (layer, rows) in enumerate(curves.items()):
            rows = sorted(rows, key=lambda r: r.step)
            step, exact = (np.array([getattr(r, c) for r in rows]) for c in ("step", column))
            short_form = column.replace("_acc1", "_trace")  # what the forgotten name has not, and needs not
            trace = np.array([getattr(r, short_form, np.nan) for r in rows]) - getattr(baseline, short_form, 0)
            trace = np.maximum(trace + getattr(baseline, column), 0)
            color, shape = f"C{i}", MARKERS[i % len(MARKERS)]
            some = np.where(np.isnan(exact), trace, exact)
            there = ~np.isnan(some)
            panel.plot(step[there], 100 * some[there], STYLES[i % 4], color=color, lw=1)
            panel.plot(step, 100 * np.where(np.isnan(exact), trace, np.nan), shape, ms=4, mfc="none", color=color)
            panel.plot(step, 100 * exact, shape, ms=4, color=color)
            panel.plot([], [], STYLES[i % 4], marker=shape, ms=4, lw=1, color=color, label=f"{tower(layer)} {short(layer)}")
        panel.axhline(100 * getattr(baseline, column), color="0.4", lw=1, ls=(0, (1, 1)))
        panel.plot(winner.step, 100 * getattr(winner, column), "*", color="k", ms=13, zorder=5)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xlabel("step size")
        panel.set_ylabel(f"zero-shot top-1 of {what}, % (n = {count})")
    hollow = f"; hollow: change on {trace_count} of them" if trace_count else ""
    figure.suptitle(f"{title}: validation split; dotted: unedited model; star: winner{hollow}", y=0.99)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncol=min(5, len(labels)),
        frameon=False,
        fontsize=8,
    )
    figure.tight_layout()
    save(figure, stem)


def tradeoff(points, chosen, title, stem, *, forgotten=0.02):
    """Forget accuracy against retain accuracy of every candidate of every method; SLUG's own front is joined up.

    The second panel shows those that forget, method by method, near the original's retain accuracy. The one that was kept
    need not be the highest: it was chosen on all pictures, these are the few that every candidate was scored on, and it must
    forget by a margin too (search.Step.forgets).

    Args:
        points: {method: (N, 2) array of forget and retain accuracy}, fractions; "original" is one point.
        chosen: {method: (forget, retain)} of the candidates that were kept.
        forgotten: forget accuracy up to which a candidate is shown in the second panel.
    """
    figure, (axes, near) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    methods = [m for m in points if m != "original"]
    for i, (method, values) in enumerate(points.items()):
        x, y = 100 * np.asarray(values).reshape(-1, 2).T
        style = {"marker": MARKERS[i % len(MARKERS)], "edgecolors": f"C{i}" if method != "original" else "k"}
        count = "" if method == "original" else f" ({len(x)})"
        axes.scatter(x, y, s=22, facecolors="none", lw=0.9, label=method + count, **style)
        if method == "original":
            near.axhline(y[0], color="k", lw=0.8, ls=":")
            continue
        place = methods.index(method)
        forgets = y[x <= 100 * forgotten]
        near.scatter([place] * len(forgets), forgets, s=22, facecolors="none", lw=0.9, **style)
        if method in chosen:
            forget, kept = 100 * np.asarray(chosen[method])
            axes.scatter(forget, kept, s=70, zorder=4, facecolors=style["edgecolors"], **style)
            near.scatter(place, kept, s=70, zorder=4, facecolors=style["edgecolors"], **style)
        if method == "slug":
            order = np.lexsort((-y, x))
            best = np.maximum.accumulate(y[order])
            front = order[y[order] >= best]
            axes.step(x[front], y[front], where="post", color=style["edgecolors"], lw=1.2)
    axes.set_xlabel("zero-shot top-1 of the forgotten name, %")
    axes.set_ylabel("zero-shot top-1 of the rest, %\n(mean of other identities and objects)")
    near.set_xticks(range(len(methods)), methods)
    near.set_xlim(-0.6, len(methods) - 0.4)
    if "original" in points:
        reference = 100 * np.asarray(points["original"]).reshape(-1, 2)[0, 1]
        near.set_ylim(reference - 20, reference + 3)
    near.set_ylabel("the same, %; dotted: the unedited model")
    near.set_xlabel(f"candidates that forget (top-1 of the name at most {forgotten:.0%})")
    figure.suptitle(title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncol=7, frameon=False)
    save(figure, stem)


def costs(rows, title, stem):
    """Bars of what each method costs, on log scales.

    Args:
        rows: {method: (seconds, peak MB, kB to store)}.
    """
    figure, panels = plt.subplots(1, 3, figsize=(9.5, 0.6 + 0.4 * len(rows)), sharey=True, layout="constrained")
    for panel, i, what in zip(panels, range(3), ("seconds", "peak memory, MB", "to store, kB"), strict=True):
        values = [row[i] for row in rows.values()]
        panel.barh(range(len(rows)), values, color=["C3" if m.startswith("slug") else "0.6" for m in rows])
        for y, value in enumerate(values):
            panel.text(value, y, f" {value:,.0f}" if value >= 10 else f" {value:.2g}", va="center", fontsize=8)
        panel.set_xlim(right=panel.get_xlim()[1] * 1.2)
        panel.set_xlabel(what)
        panel.set_yticks(range(len(rows)), list(rows))
        panel.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    figure.suptitle(title)
    save(figure, stem)


def bars(values, what, title, stem):
    """Horizontal bars.

    Args:
        values: {label: number}, from top to bottom.
        what: what the numbers are, with their unit.
    """
    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.42 * len(values)), layout="constrained")
    axes.barh(range(len(values)), list(values.values()), color=["C0", *["0.6"] * (len(values) - 1)])
    for y, value in enumerate(values.values()):
        axes.text(value, y, f" {value:,.0f}" if value >= 100 else f" {value:.3g}", va="center", fontsize=8)
    axes.set_xlim(right=1.08 * axes.get_xlim()[1])
    axes.set_xlabel(what)
    axes.set_yticks(range(len(values)), list(values))
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    axes.set_title(title)
    save(figure, stem)


def growth(panels, title, stem):
    """Seconds and peak memory against sizes, a panel each.

    Args:
        panels: {what: [(size, seconds, MB)]}.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), layout="constrained")
    for i, (panel, (what, points)) in enumerate(zip(axes, panels.items(), strict=True)):
        size, seconds, memory = np.array(points, float).T
        panel.plot(size, seconds, "o-", color="C0", label="seconds (left)")
        other = panel.twinx()
        other.plot(size, memory, "s--", color="0.45", label="peak memory, MB (right)")
        for side in (panel, other):
            side.set_ylim(0, 1.06 * side.get_ylim()[1])
        panel.set_xscale("log")
        panel.set_xticks(size, [f"{int(s):,}" for s in size])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlabel(what)
        other.grid(visible=False)
        panel.set_ylabel("seconds" if i == 0 else "")
        other.set_ylabel("MB" if i == len(panels) - 1 else "")
        handles = [*panel.get_lines(), *other.get_lines()]
    figure.legend(handles, [h.get_label() for h in handles], loc="outside lower center", ncol=2, frameon=False)
    figure.suptitle(title)
    save(figure, stem)


def similarity(before, after, names, title, stem):
    """Cosine similarity of mean picture features (rows) and name prompts (columns), before and after the edit.

    Args:
        before, after: (K, K) arrays.
        names: K names, the forgotten one first.
    """
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True, layout="constrained")
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    for panel, values, when in zip(panels, (before, after), ("before", "after"), strict=True):
        image = panel.imshow(values, cmap="cividis", vmin=low, vmax=high)
        panel.grid(False)
        panel.set_xticks(range(len(names)), names, rotation=40, ha="right")
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel("name prompt")
        panel.set_title(when)
        for i in range(len(names)):
            for j in range(len(names)):
                dark = values[i, j] < (low + high) / 2
                panel.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=6.5, color="w" if dark else "k")
    panels[0].set_ylabel("mean of the pictures of")
    figure.colorbar(image, ax=panels, shrink=0.8, label="cosine")
    figure.suptitle(title)
    save(figure, stem)


def pictures(images, truth, before, after, title, stem):
    """Pictures of the forgotten name (top) and of others (bottom), each with what the model says before and after.

    Args:
        images: (2 K, 3, S, S) uint8 tensor.
        truth, before, after: 2 K names.
    """
    columns = len(truth) // 2
    figure, panels = plt.subplots(2, columns, figsize=(1.45 * columns, 4.1), layout="constrained")
    for panel, image, name, old, new in zip(panels.flat, images, truth, before, after, strict=True):
        panel.imshow(image.permute(1, 2, 0).numpy())
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(False)
        marks = ["\u2713" if guess == name else "\u2717" for guess in (old, new)]
        said = (f"{old}\u00a0{marks[0]}", f"\u2192 {new}\u00a0{marks[1]}")  # a mark stays with its name
        panel.set_xlabel("\n".join(textwrap.fill(text, 19) for text in said), fontsize=7.5)
    panels[0, 0].set_ylabel("forgotten")
    panels[1, 0].set_ylabel("others")
    figure.suptitle(title)
    save(figure, stem)


def sheet(states, titles, right, own, title, stem, seen_by="both classifiers see"):
    """Pictures of several states of a pipeline, a row each (before, after), the forgotten concept's on the left.

    Args:
        states: [(K, 3, S, S) uint8 tensor].
        titles: K texts, what was asked for.
        right: per state K flags: what judges agrees with what was asked for.
        own: how many of the K are of the forgotten concept.
        seen_by: who judges, and the verb.
    """
    rows, columns = len(states), len(titles)
    figure, panels = plt.subplots(rows, columns, figsize=(1.15 * columns, 1.2 * rows + 0.5), layout="constrained")
    for i, (images, flags) in enumerate(zip(states, right, strict=True)):
        for k, (panel, image, flag) in enumerate(zip(panels[i], images, flags, strict=True)):
            panel.imshow(image.permute(1, 2, 0).numpy())
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(False)
            panel.set_xlabel("\u2713" if flag else "\u2717", fontsize=8)
            for side in panel.spines.values():
                side.set(color="k" if k < own else "0.7", linewidth=1.6 if k < own else 0.8)
            if i == 0:
                panel.set_title(titles[k], fontsize=7.5)
    for i, what in enumerate(("before", "after")[:rows]):
        panels[i, 0].set_ylabel(what)
    figure.suptitle(f"{title} (thick frame); \u2713: {seen_by} what was asked for", fontsize=9)
    save(figure, stem, dpi=100)  # the pictures have 64 pixels, and many sheets are committed


def answers(pictures, said, right, own, title, stem):
    """Pictures with what an assistant says of each before and after, the forgotten name's on the left.

    Args:
        pictures: K PIL pictures.
        said, right: K pairs (before, after) of texts, of flags.
        own: how many of the K are of the forgotten name.
    """
    figure, panels = plt.subplots(1, len(pictures), figsize=(1.5 * len(pictures), 2.4), layout="constrained", squeeze=False)
    for k, (panel, picture) in enumerate(zip(panels[0], pictures, strict=True)):
        panel.imshow(picture)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(False)
        for side in panel.spines.values():
            side.set(color="k" if k < own else "0.7", linewidth=1.6 if k < own else 0.8)
        marks = ["\u2713" if flag else "\u2717" for flag in right[k]]
        lines = [f"{text or '(nothing)'} {mark}" for text, mark in zip(said[k], marks, strict=True)]
        panel.set_xlabel("\n".join(textwrap.fill(line, 16) for line in lines), fontsize=7.5)
    figure.suptitle(f"{title} (thick frame); the answer before, and after", fontsize=9)
    save(figure, stem)


def assistant(frame, title, stem):
    """What forgetting costs an assistant, a line a name along multiples of its step: forget accuracy against what is lost.

    Args:
        frame: DataFrame with the columns name, factor, forget_acc, identities_change and utility_change, fractions.
    """
    panels = {"identities_change": "naming others", "utility_change": "all other questions"}
    panels = {c: said for c, said in panels.items() if c in frame}
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4), squeeze=False, layout="constrained")
    for panel, (column, said) in zip(axes[0], panels.items(), strict=True):
        for i, (name, part) in enumerate(frame.sort_values("factor").groupby("name", sort=False)):
            x, y = -100 * part[column], 100 * part["forget_acc"]
            panel.plot(x, y, "-", color=f"C{i}", marker=MARKERS[i % len(MARKERS)], mfc="none", ms=5, lw=1.2, label=name)
            chosen = part["factor"] == 1
            panel.plot(x[chosen], y[chosen], MARKERS[i % len(MARKERS)], color=f"C{i}", ms=8)
        panel.set_ylim(-3, 103)
        panel.set_xlabel(f"{said}: points lost")
    axes[0][0].set_ylabel("answers that name the forgotten name, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncol=5, frameon=False)
    figure.suptitle(title, fontsize=9)
    save(figure, stem)


def canvas(panels, floor, title, stem):
    """The best UA against the part of IRA and of CRA that has to stay, a line a method.

    Args:
        panels: {title: (shares, {method: UA of each share}, {label: (share, UA)} of single marks)}, fractions.
        floor: share below which the search scores nothing whole; shaded.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.2), squeeze=False, layout="constrained")
    for panel, (what, (shares, curves, marks)) in zip(axes[0], panels.items(), strict=True):
        x = 100 * np.asarray(shares)
        for i, (method, values) in enumerate(curves.items()):
            style = {"marker": MARKERS[i % len(MARKERS)], "ms": 4, "markevery": max(1, len(x) // 10), "mfc": "none"}
            panel.plot(x, 100 * np.asarray(values), STYLES[i % 4], color=f"C{i}", lw=1.2, label=method, **style)
        for (label, (share, ua)), mark in zip(marks.items(), ("*", "P"), strict=False):
            panel.plot(100 * share, 100 * ua, mark, color="k", ms=11, label=label, zorder=5)
            panel.axvline(100 * share, color="k", lw=0.8, ls=":")
        panel.axvspan(x[0], 100 * floor, color="0.92", zorder=0, label="below the search's floor")
        panel.set_xlim(x[0], x[-1])
        panel.set_ylim(-3, 103)
        panel.set_xlabel("IRA and CRA each at least this part of the original's, %")
        panel.set_title(what, fontsize=9)
    axes[0][0].set_ylabel("best UA, mean over concepts, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncol=4, frameon=False)
    figure.suptitle(title, fontsize=9)
    save(figure, stem)


def variants(differences, interval, title, stem):
    """A row a variant: its difference from the standard by name, the mean and its interval; a panel a figure.

    Args:
        differences: {figure: {variant: Series of points}}, see claims.against_standard.
        interval: Series -> (mean, low, high).
    """
    rows = list(dict.fromkeys(v for part in differences.values() for v in part))
    size = (9, 1.6 + 0.26 * len(rows))
    figure, panels = plt.subplots(1, len(differences), figsize=size, sharey=True, squeeze=False)
    for panel, (what, part) in zip(panels[0], differences.items(), strict=True):
        for variant, points in part.items():
            y = rows.index(variant)
            panel.plot(points, [y] * len(points), "o", color="0.6", mfc="none", ms=4)
            mean, low, high = interval(points)
            panel.plot([low, high], [y, y], "-", color="C0", lw=2)
            panel.plot(mean, y, "D", color="C0", ms=5)
        panel.axvline(0, color="0.3", lw=1)
        panel.set_xscale("symlog", linthresh=1)
        left, right = panel.get_xlim()
        panel.set_xlim(min(left, -1.5), max(right, 1.5))
        panel.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.set_xlabel(f"{what}: points better than the standard")
    panels[0][0].set_yticks(range(len(rows)), rows)
    panels[0][0].invert_yaxis()
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, stem)


def relearning(curves, original, title, stem):
    """Forget (top) and retain accuracy (bottom) against fine-tuning steps, a column a number of forget pictures.

    Args:
        curves: {label of a column: {method: (steps (N,), forget accuracy (N,), retain accuracy (N,))}}, fractions.
        original: (forget, retain) accuracy of the unedited model.
    """
    figure, panels = plt.subplots(
        2,
        len(curves),
        figsize=(1.2 + 3.1 * len(curves), 5.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, (label, methods) in zip(panels.T, curves.items(), strict=True):
        for i, (method, (steps, *values)) in enumerate(methods.items()):
            place = np.arange(len(steps))  # by rank: 0, 1, 2, 5, 10, 20 are about even on a log scale, which has no 0
            for panel, value in zip(column, values, strict=True):
                style = {"marker": MARKERS[i % len(MARKERS)], "ms": 4, "lw": 1.2, "mfc": "none"}
                panel.plot(place, 100 * value, STYLES[i % 4], color=f"C{i}", label=method, **style)
        for panel, value in zip(column, original, strict=True):
            panel.axhline(100 * value, color="k", lw=0.9, ls=(0, (1, 1)), label="unedited model")
            panel.set_ylim(-3, 103)
        column[0].set_title(label, fontsize=9)
        column[1].set_xticks(place, [f"{s:g}" for s in steps])
        column[1].set_xlabel("fine-tuning steps")
    panels[0][0].set_ylabel("zero-shot top-1 of\nthe forgotten name, %")
    panels[1][0].set_ylabel("zero-shot top-1 of the rest, %\n(mean of identities and objects)")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncol=7, frameon=False)
    figure.suptitle(title)
    save(figure, stem)
