"""The explorer's page, by Gradio, which no other module imports."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from slug.data.images import evenly_spaced, read
from slug.errors import SlugError
from slug.explorer import samples
from slug.explorer.bench import Answers, Bench, Point
from slug.explorer.samples import Picture

SLIDERS, SHOWN, SIDE = 6, 24, 128  # edits at once; pictures of the gallery, of each kind; their side in pixels
DRAWN = 400  # pixels that a pipeline's picture takes on the page, at least
CSS = """
.answers { border-collapse: collapse; width: 100%; table-layout: fixed; font-variant-numeric: tabular-nums }
.prose .answers th, .prose .answers td { text-align: left; padding: .25rem .4rem; overflow-wrap: anywhere; border: 0 }
.prose .answers tr { border-bottom: 1px solid var(--border-color-primary) }
.prose .answers .share { text-align: right; white-space: nowrap; width: 20% }
.prose table.answers, .prose .answers * { border-inline: 0 !important }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)) !important }
#gallery .grid-wrap { margin-top: 1.7rem }
#gallery .thumbnail-lg { display: flex; flex-direction: column; height: auto; aspect-ratio: auto }
#gallery .thumbnail-lg > img { height: auto; aspect-ratio: 1; border-radius: 0 }
#gallery .caption-label { position: static; max-width: 100%; opacity: 1 !important; border: 0; padding: 0;
  margin: .2rem .35rem; font-size: .75rem; line-height: 1rem; height: 2rem; white-space: normal; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2 }
#model-dir input, #results input { text-overflow: ellipsis }
.answers td.share { background: linear-gradient(to left, var(--primary-200) var(--p), transparent var(--p)) }
.dark .answers td.share { background: linear-gradient(to left, var(--primary-700) var(--p), transparent var(--p)) }
footer { display: none !important }
"""
TITLES = """() => document.addEventListener("mouseover", ({target}) => {
  const shown = target.closest?.("#gallery .thumbnail-lg, #model-dir input, #results input")
  if (shown) shown.title = shown.value || shown.querySelector("img")?.alt || ""
})"""  # what has no room on the page is said in full under the mouse


def one_line(function: Callable) -> Callable:
    """The function with failures that a user can do something about as a message on the page."""

    def wrapped(*given: Any) -> Any:
        try:
            return function(*given)
        except SlugError as err:
            raise gr.Error(html.escape(str(err)), title="Not possible", print_exception=False) from err

    return wrapped


def table(before: Answers, after: Answers) -> str:
    """The top five before and after, as HTML in which names are text."""
    cell = '<td>{}</td><td class="share" style="--p:{:.1f}%">{:.1f}%</td>'
    rows = [[cell.format(html.escape(n), 100 * p, 100 * p) for n, p in answers] for answers in (before, after)]
    head = '<tr><th>before</th><th class="share"></th><th>after</th><th class="share"></th></tr>'
    body = "".join(f"<tr>{a}{b}</tr>" for a, b in zip(*rows, strict=True))
    return f'<table class="answers"><thead>{head}</thead><tbody>{body}</tbody></table>'


def plot(points: Sequence[Point]) -> Any:
    """Recognised and retained accuracy against strength, with counts, as a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    first, x = points[0], [p.strength for p in points]
    for which, total, label, color in (
        ("recognised", first.n_recognised, "forgotten names, recognised", "#D55E00"),
        ("retained", first.n_retained, "other names, retained", "#0072B2"),
    ):
        if total:
            counts = [getattr(p, which) for p in points]
            axes.plot(x, [100 * c / total for c in counts], "o-", color=color, ms=5, label=f"{label} (of {total} pictures)")
            for at, count in zip(x, counts, strict=True):
                axes.annotate(
                    str(count), (at, 100 * count / total), (0, 6), textcoords="offset points", ha="center", fontsize=8
                )
    axes.axvline(1, color="0.6", lw=1, ls=":")
    axes.set(xlabel="strength of every chosen edit (1: the step that was found)", ylabel="own name first, %", ylim=(-4, 114))
    figure.legend(loc="outside upper center", ncol=2, frameon=False, fontsize=9)
    return figure


def thumbnail(path: str) -> Image.Image:
    """A picture of the gallery; small ones keep their pixels."""
    picture = read(path)
    if picture is None:
        raise SlugError(f"cannot read the picture {path}; it is missing, or damaged")
    picture = picture.convert("RGB")
    return scaled(picture, SIDE)


def scaled(picture: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side has `side` pixels."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


class Session:
    """What the page holds: a bench, and the evaluation pictures of which it shows a sample."""

    def __init__(self, open_bench: Callable[[str, str], Bench], pictures: Sequence[Picture]) -> None:
        self.open_bench, self.pictures = open_bench, pictures
        self.thumbnails: dict[str, Image.Image] = {}
        self.bench: Bench

    def open(self, folder: str, results: str) -> str:
        """Take another model folder and results folder; says in one line what was found."""
        self.bench = self.open_bench(folder, results)
        left = f"; {len(self.bench.left_out)} of another model left out: {', '.join(self.bench.left_out)}"
        n = len(self.bench.edits)
        return f"{n} edit{'s' * (n > 1)} of {self.bench.model.label}" + left * bool(self.bench.left_out)

    def strengths(self, chosen: Sequence[str], values: Sequence[float]) -> dict[str, float]:
        """{edit: strength} of the sliders that are shown."""
        if len(chosen) > SLIDERS:
            raise SlugError(f"{len(chosen)} edits are chosen, and at most {SLIDERS} fit on the page")
        return {c: v for c, v in zip(chosen, values, strict=False) if c in self.bench.edits}

    def sample(self, chosen: Sequence[str]) -> list[Picture]:
        return samples.sample(self.pictures, self.bench.forgotten(chosen))

    def names(self, chosen: Sequence[str]) -> str:
        """Names to choose among: those of the sample, and the forgotten ones, one in each line."""
        own = [p.header.get("name") or "" for c in chosen for p in self.bench.edits[c].parts]
        return "\n".join({samples.key(n): n for n in [*own, *(p.name for p in self.sample(chosen))]}.values())

    def shown(self, chosen: Sequence[str], names: Sequence[str]) -> list[Picture]:
        """The pictures of the gallery: of forgotten names, then of others; the recognised ones come first."""
        gone = self.bench.forgotten(chosen)
        parts: tuple[list[Picture], list[Picture]] = ([], [])
        for picture in self.sample(chosen):
            parts[samples.key(picture.name) not in gone].append(picture)
        found = [p for part in parts for p in evenly_spaced(part, SHOWN)]
        answers = self.bench.answers({}, [p.path for p in found], names)
        right = {p.path for p, a in zip(found, answers, strict=True) if samples.key(a[0][0]) == samples.key(p.name)}
        return sorted(found, key=lambda p: (samples.key(p.name) not in gone, p.path not in right))

    def gallery(self, strengths: Mapping[str, float], text: str) -> list[tuple[Image.Image, str]]:
        """[(picture, what it is taken for before and after)]."""
        names = samples.names_of(text)
        found = self.shown(list(strengths), names)
        answers = [self.bench.answers(s, [p.path for p in found], names) for s in ({}, strengths)]
        captions = [f"{a[0][0]} → {b[0][0]}" if a[0][0] != b[0][0] else a[0][0] for a, b in zip(*answers, strict=True)]
        for picture in found:
            self.thumbnails.setdefault(picture.path, thumbnail(picture.path))
        return [(self.thumbnails[p.path], caption) for p, caption in zip(found, captions, strict=True)]

    def top(self, strengths: Mapping[str, float], text: str, own: Any, place: int) -> str:
        """The top five of somebody's own picture, or else of the gallery's at `place`."""
        names = samples.names_of(text)
        found = self.shown(list(strengths), names)
        if own is None and not found:
            return "<p>Drop in a picture of your own: there are no evaluation pictures here.</p>"
        picture = found[min(place, len(found) - 1)] if own is None else None
        image = own if picture is None else picture.path
        what = "your picture" if picture is None else f"a picture of {html.escape(picture.name)}"
        return f"<p>{what}</p>" + table(*(self.bench.answers(s, [image], names)[0] for s in ({}, strengths)))


def slider(chosen: Sequence[str], place: int) -> dict[str, Any]:
    """What a slider shows: the strength of the chosen edit of its place, or nothing."""
    there = place < len(chosen)
    return {"visible": there, "label": f"Strength of {chosen[place]}" if there else ""}


def build(session: Session, folder: str, results: str) -> Any:
    """The page as gr.Blocks, with the bench of `folder` and `results` open."""
    said = session.open(folder, results)
    start = list(session.bench.edits)[:1]
    with gr.Blocks(title="SLUG explorer", analytics_enabled=False) as page:
        gr.Markdown("# SLUG explorer\nWhat a model forgets with an edit, and what it retains. Nothing leaves this machine.")
        line: dict[str, Any] = {"scale": 2, "max_lines": 1, "min_width": 300}  # one below the other on a narrow page
        with gr.Row(equal_height=True):
            model = gr.Textbox(folder, label="Model folder", elem_id="model-dir", **line)
            place = gr.Textbox(results, label="Folder of edits, or a delta file", elem_id="results", **line)
            button = gr.Button("Open", scale=0, min_width=100, elem_id="open")
        state = gr.Markdown(html.escape(said), elem_id="state")
        chosen = gr.Dropdown(
            list(session.bench.edits), value=start, multiselect=True, max_choices=SLIDERS, label="Edits", elem_id="edits"
        )
        with gr.Row():
            sliders = [
                gr.Slider(0, 2, 1, step=0.05, min_width=300, elem_id=f"strength-{i}", **slider(start, i))
                for i in range(SLIDERS)
            ]
        with gr.Column(visible=not session.bench.draws) as clip_part:
            refresh_clip, names = clip_page(session, chosen, sliders, start)
        with gr.Column(visible=session.bench.draws) as pipeline_part:
            pipeline_page(session, chosen, sliders)

        def choose(chosen: list[str]) -> list[Any]:
            return [*(gr.update(**slider(chosen, i)) for i in range(SLIDERS)), session.names(chosen)]

        def reopen(folder: str, results: str) -> list[Any]:
            said = session.open(folder, results)
            labels = list(session.bench.edits)
            parts = [gr.update(visible=not session.bench.draws), gr.update(visible=session.bench.draws)]
            return [html.escape(said), gr.update(choices=labels, value=labels[:1]), *parts]

        chosen.change(one_line(choose), chosen, [*sliders, names], show_progress="hidden").then(**refresh_clip)
        button.click(one_line(reopen), [model, place], [state, chosen, clip_part, pipeline_part])
        page.load(**refresh_clip)
    return page


def clip_page(session: Session, chosen: Any, sliders: Sequence[Any], start: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The part of the page for a CLIP: (what redraws it, the box of names)."""
    place = gr.State(0)
    with gr.Row():
        with gr.Column(scale=3):
            gallery = gr.Gallery(
                label="Evaluation pictures, taken for: before → after",
                columns=5,  # in fact as many as fit, see CSS
                object_fit="contain",
                height=440,
                allow_preview=False,
                format="png",
                elem_id="gallery",
            )
            names = gr.Textbox(
                session.names(start),
                label="Names to choose among, one in each line; add your own",
                lines=4,
                max_lines=6,
                elem_id="names",
            )
        with gr.Column(scale=2):
            top = gr.HTML(label="Top five", elem_id="top", container=True, show_label=True, padding=True)
            own = gr.Image(type="pil", label="Your own picture, in its place", height=200, sources=["upload", "clipboard"])
    gr.Markdown(
        "Click a picture for its top five. The plot is of a sample of the evaluation pictures, among the names above; its "
        "numbers count pictures."
    )
    button = gr.Button("Draw the curve: recognised and retained against strength", elem_id="draw-curve")
    curve = gr.Plot(show_label=False, elem_id="curve")

    def redraw(chosen: list[str], names: str, own: Any, place: int, *values: float) -> tuple[Any, str]:
        if session.bench.draws:
            return gr.skip(), gr.skip()
        strengths = session.strengths(chosen, values)
        return session.gallery(strengths, names), session.top(strengths, names, own, place)

    def pick(event: gr.SelectData) -> tuple[int, None]:
        return event.index, None  # the gallery's picture takes the place of one's own

    def draw(chosen: list[str], names: str) -> Any:
        return plot(session.bench.curve(chosen, session.sample(chosen), samples.names_of(names)))

    refresh = {"fn": one_line(redraw), "inputs": [chosen, names, own, place, *sliders], "outputs": [gallery, top]}
    refresh |= {"show_progress": "hidden", "concurrency_id": "model", "trigger_mode": "always_last"}
    for slider in sliders:
        slider.change(**refresh)
    names.change(**refresh)
    own.change(**refresh)
    gallery.select(pick, None, [place, own]).then(**refresh)
    button.click(one_line(draw), [chosen, names], curve, concurrency_id="model")
    return {k: v for k, v in refresh.items() if k != "trigger_mode"}, names


def pipeline_page(session: Session, chosen: Any, sliders: Sequence[Any]) -> None:
    """The part of the page for a pipeline."""
    with gr.Row(equal_height=True):
        prompt = gr.Textbox("", label="Prompt", scale=4, elem_id="prompt")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, scale=1)
        button = gr.Button("Draw", scale=0, min_width=100, elem_id="draw")
    with gr.Row():
        before, after = (
            gr.Image(label=w, type="pil", format="png", height=DRAWN, elem_id=w, buttons=["download", "fullscreen"])
            for w in ("before", "after")
        )

    def draw(chosen: list[str], prompt: str, seed: int, *values: float) -> tuple[Image.Image, Image.Image]:
        made = session.bench.drawn(session.strengths(chosen, values), prompt, int(seed or 0))
        old, new = (scaled(p, DRAWN) if max(p.size) < DRAWN else p for p in made)  # 64 pixels are hard to see
        return old, new

    button.click(one_line(draw), [chosen, prompt, seed, *sliders], [before, after], concurrency_id="model")


def serve(page: Any, port: int | None, *, blocking: bool = True) -> str:
    """Serve the page on this machine alone, until interrupted if `blocking`. Returns its address."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    how: dict[str, Any] = {"server_name": "127.0.0.1", "server_port": port, "share": False, "quiet": True, "theme": theme}
    _, address, _ = page.launch(
        **how, css=CSS, js=TITLES, prevent_thread_lock=True, ssr_mode=False, footer_links=[], enable_monitoring=False
    )
    print(f"explorer: {address}", flush=True)
    if blocking:
        page.block_thread()
    return address
