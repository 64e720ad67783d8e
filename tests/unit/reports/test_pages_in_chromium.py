"""The page in a real headless browser: nothing fails, charts have points that say what they are, names are text."""

import chromium
import pages
import pytest

pytestmark = [
    pytest.mark.skipif(not chromium.PROGRAM, reason="no Chromium here; apt install chromium, or set CHROMIUM"),
    pytest.mark.filterwarnings("ignore:.*preexec_fn.*"),
]


@pytest.fixture(scope="module")
def browser():
    with chromium.Browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = pages.folder(tmp_path_factory.mktemp("run") / "clip", methods=("slug", "ga"))
    (folder / "report.html").write_text(pages.page(folder), encoding="utf-8")
    return folder / "report.html"


@pytest.mark.parametrize("width, dark", [(1200, False), (1200, True), (600, False)])
def test_the_page_opens_without_errors_and_fits(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    assert browser.run("document.title") == "SLUG on m" and browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    ink, paper = (browser.run(f"getComputedStyle(document.body).{c}") for c in ("color", "backgroundColor"))
    assert (sum(map(int, ink[4:-1].split(", "))) > sum(map(int, paper[4:-1].split(", ")))) == dark


def test_charts_have_points_and_hovering_one_shows_the_layer(browser, page):
    browser.open(page)
    assert browser.run("[...document.querySelectorAll('svg.plot')].every(p => p.querySelectorAll('.p').length > 0)")
    browser.hover("svg.plot .p")
    assert browser.run("document.getElementById('tip').textContent") in ("proj", "text_projection", "1.mlp.c_fc")
    assert browser.run("getComputedStyle(document.getElementById('tip')).visibility") == "visible"


def test_the_keyboard_reaches_every_point_and_every_name(browser, page):
    browser.open(page)
    browser.run("document.querySelector('details.name summary').focus()")
    for _ in range(40):
        browser.press("Tab")
        if browser.run("document.activeElement.matches('svg.plot')"):
            break
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    seen = set()
    for _ in range(browser.run("document.activeElement.querySelectorAll('.p').length")):
        browser.press("ArrowRight")
        seen.add(browser.run("document.getElementById('tip').textContent"))
    assert seen == {"proj", "1.mlp.c_fc"} or seen == {"text_projection"}
    browser.press("Escape")
    assert browser.run("getComputedStyle(document.getElementById('tip')).visibility") == "hidden"
    browser.run("location.hash = '#name-2'")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run("document.getElementById('name-2').open")


def test_an_odd_name_shows_as_text(browser, page):
    browser.open(page)
    assert pages.ODD in browser.run("[...document.querySelectorAll('summary b')].map(b => b.textContent)")
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    said = browser.run("[...document.querySelectorAll('.says li span:first-child')].map(s => s.textContent)")
    assert pages.ODD in said and browser.errors == []
