"""The explorer's page in a real headless browser: nothing fails, sliders change the answers, names are text."""

import chromium
import explorer_page
import pytest
import tiny
from explorer_world import NAMES, write_delta

NAME = '<b>&|"'
pytest.importorskip("gradio", reason="no Gradio here; scripts/run_explorer.sh installs it into an environment of its own")
pytestmark = [
    pytest.mark.skipif(not chromium.PROGRAM, reason="no Chromium here; apt install chromium, or set CHROMIUM"),
    pytest.mark.filterwarnings("ignore"),  # of Gradio and the packages below it
]


@pytest.fixture(scope="module")
def address(explored, tiny_clip, tiny_pipeline, tmp_path_factory):
    """Where the page is served."""
    from slug.explorer import page, samples
    from slug.explorer.bench import Bench

    work = tmp_path_factory.mktemp("pipeline-edits")
    model = tiny.load_pipeline(tiny_pipeline)
    write_delta(work, model, "owl", next(n for n in model.parameters if n.endswith("fc1.weight")))

    def bench(folder, results):
        return Bench(folder, [results], clip=str(tiny_pipeline / "hugging_face"), steps=3, guidance=3.0)

    session = page.Session(bench, samples.pictures(explored / "faces"))
    shown = page.build(session, str(tiny_clip / "open_clip"), str(explored / "results"))
    yield page.serve(shown, None, blocking=False), str(tiny_pipeline / "pipeline"), str(work)
    shown.close()


@pytest.fixture(scope="module")
def visitor():
    with explorer_page.Visitor() as found:
        yield found


def test_the_page_opens_without_errors_and_the_slider_changes_the_top_five(visitor, address):
    visitor.visit(address[0])
    visitor.until("document.querySelectorAll('#gallery img').length === 16")
    assert visitor.failures == [] and visitor.text("#state") == "2 edits of open_clip"
    rows = "[...document.querySelectorAll('#top tbody tr')].map(r => r.innerText)"
    first = visitor.run(rows)
    assert len(first) == 4 and all(any(n in row for n in NAMES) for row in first)
    visitor.enter("#strength-0 input[type=number]", 2)
    visitor.until(f"JSON.stringify({rows}) !== {explorer_page.quoted(first)}")
    visitor.enter("#strength-0 input[type=number]", 0)
    cells = "[...document.querySelectorAll('#top tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    visitor.until(f"{cells}.every(([a, b, c, d]) => a === c && b === d)")
    assert visitor.failures == []


def test_a_typed_name_is_text(visitor, address):
    visitor.visit(address[0])
    visitor.enter("#names textarea", "\n".join([NAME, *NAMES]))
    visitor.until(f"[...document.querySelectorAll('#top td')].some(c => c.innerText === {explorer_page.quoted(NAME)})")
    assert not visitor.run("document.querySelector('#top b, #gallery b')") and visitor.failures == []
    visitor.enter("#names textarea", "ant")
    visitor.until("document.body.innerText.includes('type two names at least')")


@pytest.mark.parametrize("width", [1280, 600])
def test_captions_stand_below_pictures_and_no_text_is_clipped_without_a_tooltip(visitor, address, width):
    visitor.visit(address[0], width)
    visitor.enter("#names textarea", "\n".join(f"{name} {'of a very long name ' * 5}" for name in NAMES))
    items = "[...document.querySelectorAll('#gallery .thumbnail-lg')]"
    visitor.until(f"{items}.length === 16 && {items}.every(i => i.innerText.includes('of a very long name'))")
    low, high = "i.querySelector('.caption-label').getBoundingClientRect()", "i.querySelector('img').getBoundingClientRect()"
    assert visitor.run(f"{items}.every(i => {high}.height >= 90 && {low}.top >= {high}.bottom && {low}.height <= 33)")
    for shown, text in (
        ("#gallery .thumbnail-lg", "querySelector('.caption-label').innerText"),
        ("#model-dir input", "value"),
    ):
        visitor.hover(shown)
        found = f"document.querySelector({explorer_page.quoted(shown)})"
        visitor.until(f"{found}.title && {found}.title === {found}.{text}")
    assert visitor.run("document.querySelector('#results input').clientWidth") >= 250
    assert visitor.run("document.documentElement.scrollWidth") <= width and visitor.failures == []


def test_the_curve_is_drawn(visitor, address):
    visitor.visit(address[0])
    visitor.run("document.querySelector('#draw-curve').click()")
    visitor.until("document.querySelector('#curve img')")
    assert visitor.failures == []


def test_another_model_folder_may_be_a_pipeline_and_a_bad_one_is_one_line(visitor, address):
    served, pipeline, edits = address
    visitor.visit(served)
    visitor.enter("#model-dir textarea, #model-dir input", "nowhere/<b>")
    visitor.run("document.querySelector('#open').click()")
    visitor.until("document.body.innerText.includes('model folder not found: nowhere/<b>')")
    visitor.enter("#model-dir textarea, #model-dir input", pipeline)
    visitor.enter("#results textarea, #results input", edits)
    visitor.run("document.querySelector('#open').click()")
    visitor.until("document.querySelector('#state').innerText.includes('1 edit of pipeline')")
    visitor.enter("#prompt textarea, #prompt input", "an owl")
    visitor.run("document.querySelector('#draw').click()")
    visitor.until("document.querySelector('#before img') && document.querySelector('#after img')")
    assert visitor.run("document.querySelector('#before img').src !== document.querySelector('#after img').src")
    assert visitor.failures == []
