"""The page in a real browser: it opens, sorts, filters, shows the right numbers, asks nobody."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnxq.report.html import render
from onnxq.report.table import decibels
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.reporting import EVIL, Reported

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(reported: Reported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(reported.report), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """The open page; afterwards: no error, no dialog, no request but for itself."""
    yield from opened(browser, file)


def opened(browser: Browser, file: Path, **settings) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce", **settings)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri()
            and not request.url.startswith("data:") else None)  # fmt: skip
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not wrong


def column(page: Page, table: str, header: str) -> list[str]:
    """The visible cells below a header."""
    heads = page.locator(f"{table} thead th").all_inner_texts()
    index = next(i for i, text in enumerate(heads) if text.strip().startswith(header)) + 1
    return page.locator(f"{table} tbody tr:not([hidden]) td:nth-child({index})").all_inner_texts()


def test_the_verdict_shows_the_numbers_that_were_measured(page: Page, reported: Reported):
    validation = reported.report.validation
    assert validation is not None
    exact, found = validation.rows
    card = page.locator(".card").inner_text()
    assert "passed" in card.lower()
    assert f"{decibels(found.values['sqnr'])} dB" in card
    assert f"{found.size / 1e6:.3g} MB" in card
    assert f"{100 * found.size / exact.size:.0f} % of the float model" in card
    assert page.locator("#gates tbody tr").count() == 1


def test_the_ranking_shows_sorts_and_filters(page: Page, reported: Reported):
    table = "#m1-ranking"
    (layers,) = reported.report.validation.layers
    assert column(page, table, "Layer") == [layer.name for layer in layers.layers]
    assert column(page, table, "Alone") == [decibels(layer.alone) for layer in layers.layers]
    page.locator(f"{table} thead button", has_text="As it stands").click()
    by_standing = sorted(layers.layers, key=lambda layer: -layer.standing)
    assert column(page, table, "As it stands") == [decibels(each.standing) for each in by_standing]
    page.locator(f"{table} thead button", has_text="As it stands").click()
    assert column(page, table, "As it stands")[0] == decibels(by_standing[-1].standing)
    assert page.locator(f"{table} th[aria-sort]").count() == 1
    page.locator(f"{table} thead button", has_text="Layer").press("Enter")
    names = column(page, table, "Layer")
    numbers = [int(name.removeprefix("conv")) for name in names if name.startswith("conv")]
    assert names[0] == EVIL
    assert numbers == sorted(numbers)
    name = layers.layers[0].name
    search = page.locator(f'input[data-for="{table[1:]}"]')
    search.fill(name.upper())
    shown = [layer.name for layer in layers.layers if name.lower() in layer.name.lower()]
    assert sorted(column(page, table, "Layer")) == sorted(shown)
    search.fill("nothing is called that")
    assert column(page, table, "Layer") == []
    assert page.locator("output").first.inner_text() == f"0 of {len(layers.layers)}"


def test_ranges_show_what_the_facts_say(page: Page, reported: Reported):
    (view,) = reported.report.views
    assert column(page, "#m1-ranges", "Tensor") == [each.name for each in view.tensors]
    assert column(page, "#m1-ranges", "To") == [
        "float" if each.parameters is None else f"{each.parameters.range[1]:.4g}"
        for each in view.tensors
    ]
    assert page.locator("#m1-ranges svg").count() == sum(
        each.histogram is not None for each in view.tensors
    )


def test_the_strip_leads_to_details_by_mouse_and_keyboard(page: Page, reported: Reported):
    (view,) = reported.report.views
    links = page.locator(".strip a")
    assert links.count() == len(view.layers)
    second = page.locator(f"#{view.layers[1].id}")
    assert second.get_attribute("open") is None
    links.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    # The page follows a link a moment after it: `expect` waits.
    expect(second).to_have_attribute("open", "")
    expect(second).to_be_visible()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    # The same link again opens what was closed by hand, and what a search hides.
    page.keyboard.press("Enter")
    page.locator('input[data-for="m1-details"]').fill("zzz")
    links.nth(1).click()
    expect(second).to_have_attribute("open", "")
    expect(second).to_be_visible()


def test_markup_in_names_is_text(page: Page):
    names = page.locator("details.layer summary strong").all_inner_texts()
    assert EVIL in names
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_and_can_be_read(browser: Browser, file: Path, scheme: str, width: int):
    """Nothing is wider than the screen, and text stands out from what is behind it."""
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    for page in opened(browser, file, **view):
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in ("body", ".soft", "td a", ".state-quantized", ".card .word", ".beside"):
            assert contrast(page, selector) >= 4.5, selector


def contrast(page: Page, selector: str) -> float:
    """WCAG's contrast of the first element's text with the nearest background behind it."""
    front, back = page.locator(selector).first.evaluate("""element => {
        let back = element;
        while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)')
            back = back.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(back).backgroundColor];
    }""")
    lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in color.strip("rgba() ").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
