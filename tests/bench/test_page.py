"""The page in a real browser: it is drawn, complains of nothing, asks for nothing, and shows texts as texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.browser import Browser, browser, find_chromium
from bench.pages import example, measured
from unibody.bench.page import write_page
from unibody.bench.summary import Summary


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("Chromium is not installed: `make services`, or apt-get install chromium")
    with browser() as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Path:
    write_page(example(), tmp_path / "index.html")
    return tmp_path / "index.html"


HEADS = "[...document.querySelectorAll('main h2')].map((head) => head.textContent)"


def test_plots(opened: Browser, page: Path) -> None:
    opened.events.clear()
    opened.open(page)
    assert opened.evaluate(HEADS) == [
        "Throughput and times by configuration", "History by commit", "Memory over time",
        "Perplexity against bits", "Failed", "Changes", "All numbers", "How it was measured",
    ]  # fmt: skip
    shapes = "[...document.querySelectorAll('main section')].map((card) => card.querySelectorAll('svg rect, svg path, svg circle').length)"
    drawn = dict(zip(opened.evaluate(HEADS), opened.evaluate(shapes), strict=True))
    assert drawn["Throughput and times by configuration"] >= 5 * (1 + 3)  # a bar for each result, and its dots
    assert drawn["History by commit"] >= 4
    assert drawn["Memory over time"] >= 2
    assert drawn["Perplexity against bits"] == 3
    assert opened.evaluate("document.querySelectorAll('.chip.bad').length") >= 2
    assert opened.complaints() == []
    assert opened.requests() == [page.resolve().as_uri()]


def test_controls(opened: Browser, page: Path) -> None:
    """Another metric is drawn when it is chosen, a column sorts, and the colours follow the system and the button."""
    opened.open(page, scheme="dark")
    assert opened.evaluate("document.documentElement.dataset.theme") == "dark"
    opened.evaluate("document.getElementById('theme').click()")
    assert opened.evaluate("document.documentElement.dataset.theme") == "light"
    bars = "document.querySelector('main section svg').textContent"
    choose = "(() => { const select = document.querySelector('main select'); select.value = '%s'; select.dispatchEvent(new Event('change')); })()"
    opened.evaluate(choose % "decode.latency.p50")
    assert "ms" in opened.evaluate(bars) and "tokens/s" not in opened.evaluate(bars)
    opened.evaluate(choose % "decode.throughput.value")
    assert "tokens/s" in opened.evaluate(bars)
    column = "[...[...document.querySelectorAll('main table')].at(-1).querySelectorAll('tbody tr')].map((row) => row.children[1].textContent)"
    before = opened.evaluate(column)
    opened.evaluate("[...document.querySelectorAll('main table')].at(-1).querySelectorAll('th')[1].click()")
    after = opened.evaluate(column)
    assert sorted(before) == sorted(after) and after == sorted(after, reverse=True)
    assert opened.complaints() == []


def test_narrow(opened: Browser, page: Path) -> None:
    """On a telephone nothing sticks out: wide tables scroll inside of their cards."""
    opened.open(page, width=390, height=800)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def test_texts_are_no_markup(opened: Browser, tmp_path: Path) -> None:
    """A commit's title may hold anything."""
    evil = "</script><script>document.title='broken'</script><img src=http://127.0.0.1:1/x>"
    summary = example(subject=evil, name=evil)
    write_page(summary, tmp_path / "index.html")
    opened.events.clear()
    opened.open(tmp_path / "index.html")
    assert opened.evaluate("document.title") == f"{evil} · unibody bench"
    assert evil in opened.evaluate("document.querySelector('main').textContent")
    assert opened.requests() == [(tmp_path / "index.html").resolve().as_uri()]
    assert opened.complaints() == []


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address that is asked
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=(?![\"']data:)", text)


def test_many_configurations(opened: Browser, tmp_path: Path) -> None:
    """More than there are colours: the sides of each comparison stand together, and a side has one colour."""
    first = example().results[0].commit
    names = [f"backend={side},quantizer={name}" for side in ("unibody", "transformers") for name in "abcdef"]
    summary = Summary([measured(first, name, 0.02) for name in names], (), None, example().told)
    write_page(summary, tmp_path / "index.html")
    opened.events.clear()
    opened.open(tmp_path / "index.html")
    bars = "[...document.querySelectorAll('main section:nth-of-type(1) svg g')].map((bar) => [bar.querySelector('text').textContent, bar.querySelector('rect').getAttribute('fill')])"
    found = opened.evaluate(bars)
    assert [name for name, _ in found[:4]] == [names[0], names[6], names[1], names[7]]
    assert {name.split(",")[0]: fill for name, fill in found} == {
        "backend=unibody": "var(--c0)",
        "backend=transformers": "var(--c1)",
    }
    assert opened.complaints() == []
