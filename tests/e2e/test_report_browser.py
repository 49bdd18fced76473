"""The report in a real browser: no errors, no overflow, hover and keys work, nothing is fetched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]
from browser import Browser, find_browser  # noqa: E402
from report_fixture import write_run  # noqa: E402

from toolkit.report import write_report  # noqa: E402
from toolkit.report.compare import compare_runs  # noqa: E402
from toolkit.report.index import report  # noqa: E402

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium on the PATH: apt-get install chromium (CI installs it)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    assert program
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "<script>document.title='attacked'</script>" + "a-long-name-" * 8
    return write_report(write_run(tmp_path_factory.mktemp("run"), name=name))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_and_says_nothing_in_the_console(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    outside = "[...document.querySelectorAll('h1, h2, h3, p, dd, figure, svg:not(td svg), summary')]"
    outside += ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    assert browser.evaluate(outside) == []
    empty = "[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().height < 80).length"
    assert browser.evaluate(empty) == 0
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 22, 26)" if dark else "rgb(252, 252, 250)"
    )
    assert browser.evaluate("document.title").startswith("<script>")  # shown, not run
    assert browser.errors == []
    assert set(browser.requests) == {page.as_uri()}


def test_text_is_readable_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    sizes = """[...document.querySelectorAll('figure svg:not(.maze) text')].filter(e => e.getBoundingClientRect().width)
        .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a)"""
    assert min(browser.evaluate(sizes)) > 9.5
    broken = """[...document.querySelectorAll('figure.chart svg')].filter(svg => {
        const boxes = [...svg.querySelectorAll('text')].map(e => e.getBoundingClientRect());
        return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right
            && a.top + 3 < b.bottom && b.top + 3 < a.bottom)) }).map(svg => svg.getAttribute('aria-label'))"""
    assert browser.evaluate(broken) == []


def test_hover_and_keys_show_values(browser: Browser, page: Path) -> None:
    browser.open(page, 1440)
    browser.evaluate("document.querySelector('#learning figure.chart svg').scrollIntoView({block: 'center'})")
    box = browser.evaluate(
        "JSON.parse(JSON.stringify(document.querySelector('#learning svg').getBoundingClientRect()))"
    )
    tip = "(e => [e.style.visibility, e.innerText])(document.querySelector('#learning .tip'))"
    assert browser.evaluate(tip)[0] == ""
    browser.move(box["x"] + box["width"] * 0.995, box["y"] + box["height"] / 2)
    visible, text = browser.evaluate(tip)
    assert visible == "visible"
    lines = text.splitlines()
    assert lines[0] == "5,000 gradient steps"
    assert lines[1].startswith("clone 0.2")
    assert lines[2].startswith("pretrain 0.9")
    assert " to " in lines[2]
    browser.move(5, 5)
    assert browser.evaluate(tip)[0] == "hidden"
    browser.evaluate("document.querySelector('#learning figure.chart').focus()")
    browser.press("Home")
    assert browser.evaluate(tip)[1].startswith("0 gradient steps")
    browser.press("ArrowRight")
    assert browser.evaluate(tip)[1].startswith("500 gradient steps")
    browser.press("End")
    assert browser.evaluate(tip)[1].startswith("5,000 gradient steps")
    browser.press("Escape")
    assert browser.evaluate(tip)[0] == "hidden"
    assert browser.errors == []


def test_a_maze_can_be_looked_at_closer(browser: Browser, page: Path) -> None:
    browser.open(page, 1440)
    box = "document.querySelector('svg.maze').getAttribute('viewBox').split(' ').map(Number)"
    x, y, width, height = browser.evaluate(box)
    browser.evaluate("document.querySelector('.zoom button').click()")
    closer = browser.evaluate(box)
    assert closer[2:] == pytest.approx([width / 1.6, height / 1.6])
    assert closer[0] + closer[2] / 2 == pytest.approx(x + width / 2)
    browser.evaluate("document.querySelector('svg.maze').closest('figure').focus()")
    for _ in range(9):
        browser.press("ArrowRight")
    assert browser.evaluate(box)[0] == pytest.approx(x + width - width / 1.6)  # not beyond the edge
    browser.press("0")
    assert browser.evaluate(box) == [x, y, width, height]
    for _ in range(9):
        browser.press("+")
    assert browser.evaluate(box)[2] == pytest.approx(width / 8)
    assert browser.errors == []


@pytest.mark.parametrize("width", [390, 1440])
def test_other_pages_fit_too(browser: Browser, tmp_path: Path, width: int) -> None:
    """The index of a folder of runs, and runs side by side; names are text, links lead to reports."""
    for name in ("<script>document.title='attacked'</script>", "b&b " + "a-long-name-" * 8):
        (tmp_path / name.replace("/", "_")).mkdir()
        write_report(write_run(tmp_path / name.replace("/", "_"), name=name))
    runs = [path for path in tmp_path.iterdir() if path.is_dir()]
    index, side = Path(report(tmp_path)["report"]), tmp_path / "side.html"
    compare_runs(runs, side)
    browser.requests.clear()
    for page in (index, side):
        browser.open(page, width)
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert browser.evaluate("document.title") in (f"Runs in {tmp_path.name}", "Comparison, pointmaze-medium")
        flat = "[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().height < 60).length"
        assert browser.evaluate(flat) == 0
        assert browser.evaluate("document.body.innerText").count("<script>") > 0  # shown, not run
    assert set(browser.requests) == {index.as_uri(), side.as_uri()}
    browser.evaluate("document.querySelector('#learning figure.chart').focus()")
    browser.press("End")
    assert "5,000 gradient steps" in browser.evaluate("document.querySelector('#learning .tip').innerText")
    browser.open(index, width)
    links = browser.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
    assert sorted(links) == sorted((run / "report.html").as_uri() for run in runs)
    assert browser.errors == []


def test_the_tip_stays_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    browser.evaluate("document.querySelector('#values figure.chart').focus()")
    for key in ("Home", "End"):
        browser.press(key)
        edges = "(b => [b.left, b.right])(document.querySelector('#values .tip').getBoundingClientRect())"
        left, right = browser.evaluate(edges)
        assert 0 <= left < right <= 390
    assert browser.evaluate("document.documentElement.scrollWidth") == 390


def test_a_picture_can_be_taken(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page, 1440)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 100_000
