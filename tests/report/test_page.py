"""The page in a real browser: it opens, compares, sorts, shows the right numbers, asks nobody."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnxq
import pytest
from onnxq.report.html import render
from onnxq.report.table import decibels
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.builder import Builder
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
            and not request.url.startswith(("data:", "blob:")) else None)  # fmt: skip
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not wrong


def column(page: Page, table: str, header: str) -> list[str]:
    """The cells below a header."""
    heads = page.locator(f"{table} thead th").all_inner_texts()
    index = next(i for i, text in enumerate(heads) if text.strip().startswith(header)) + 1
    found = page.locator(f"{table} tbody td:nth-child({index})").all_inner_texts()
    return [text.strip() for text in found]


def saved(page: Page, button) -> str:
    with page.expect_download() as waiting:
        button.click()
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_the_verdict_shows_the_numbers_that_were_measured(page: Page, reported: Reported):
    exact, *rows = reported.report.validation.rows
    assert page.locator(".card").count() == len(rows)
    for number, row in enumerate(rows):
        card = page.locator(".card").nth(number).inner_text()
        assert f"{decibels(row.values['sqnr'])} dB" in card
        assert f"{100 * row.size / exact.size:.0f} % of the float model" in card
    assert column(page, "#models", "SQNR") == ["–", *(decibels(r.values["sqnr"]) for r in rows)]
    assert page.locator("#gates tbody tr").count() == len(rows)
    assert page.locator(".scatter circle.bubble").count() == len(rows)


def test_layers_are_compared_sorted_searched_and_saved(page: Page, reported: Reported):
    table = "#layers-table"
    int8, plain = ({e.name: e for e in r.layers} for r in reported.report.validation.layers)
    ranked = [each.name for each in reported.report.validation.layers[0].layers]
    assert column(page, table, "Layer")[: len(ranked)] == ranked
    assert column(page, table, "int8") == [f"{int8[name].share:.1f}" for name in ranked]
    difference = column(page, table, "Difference")[0].replace("−", "-")
    assert float(difference) == pytest.approx(
        plain[ranked[0]].share - int8[ranked[0]].share, abs=0.06
    )
    page.get_by_role("button", name="its own error").click()
    page.locator(f"{table} thead button", has_text="plain").click()
    by_own = sorted(plain.values(), key=lambda each: -each.own)
    assert column(page, table, "plain") == [decibels(each.own) for each in by_own]
    page.locator(f"{table} thead button", has_text="plain").press("Enter")
    assert column(page, table, "plain")[0] == decibels(by_own[-1].own)
    assert page.locator(f"{table} th[aria-sort]").count() == 1
    search = page.locator(f'input[data-for="{table[1:]}"]')
    search.fill(EVIL.upper()[:12])
    assert column(page, table, "Layer") == [EVIL]
    button = page.locator("#layers .tools button", has_text="CSV")
    head, row = csv.reader(io.StringIO(saved(page, button)))
    assert (head[0], row[0]) == ("Layer", EVIL)
    search.fill("nothing is called that")
    assert column(page, table, "Layer") == []


def test_ranges_weights_and_the_recipe_are_those_of_the_model_whose_tab_is_open(
    page: Page, reported: Reported
):
    for tab, model in zip(("m1", "m2"), reported.report.views, strict=True):
        page.locator(f"#tab-{tab}").click()
        page.get_by_role("button", name="Ranges of activations").click()
        assert column(page, f"#{tab}-ranges", "Tensor") == [each.name for each in model.tensors]
        histograms = page.locator(f"#{tab}-ranges svg").count()
        assert histograms == sum(each.histogram is not None for each in model.tensors)
        page.get_by_role("button", name="Channels of weights").click()
        words = page.locator("#model-panel").inner_text()
        # Only where there was any equalization.
        assert ("after equalization" in words) is model.equalized is (tab == "m1")


def test_the_graph_leads_to_details_by_mouse_and_keyboard(page: Page, reported: Reported):
    picture = reported.report.picture
    page.locator("#graph").scroll_into_view_if_needed()
    nodes = page.locator("#graph g.node")
    expect(nodes).to_have_count(len(picture.nodes))
    assert page.locator("#graph path.edge").count() == len(picture.edges)
    drawer = page.locator("#drawer")
    expect(drawer).to_be_hidden()
    # Inputs come behind the nodes: walk from the first node along an edge.
    nodes.nth(0).focus()
    page.keyboard.press("ArrowDown")
    target = next(edge.target for edge in picture.edges if edge.source == 0)
    page.keyboard.press("Enter")
    expect(drawer).to_be_visible()
    expect(drawer.locator("h2")).to_contain_text(picture.nodes[target][0])
    expect(drawer.locator("h2")).to_be_focused()
    assert drawer.locator("h3").count() == 2
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.locator("#graph button", has_text="share of the error").click()
    assert page.locator("#graph .by-share").count() == len(reported.report.views[0].layers)


def test_the_contents_tell_where_one_is(page: Page):
    current = page.locator("#contents a[aria-current]")
    expect(current).to_have_text("Verdict")
    page.locator("#contents a", has_text="What is big").click()
    expect(current).to_have_text("What is big")


def test_markup_in_names_is_text(page: Page):
    assert EVIL in page.locator("#layers-table a").all_inner_texts()
    sources = page.locator("img").evaluate_all("all => all.map(each => each.src.slice(0, 16))")
    assert set(sources) == {"data:image/jpeg;"}
    assert page.locator("script").count() == 3


def test_all_numbers_can_be_saved(page: Page, reported: Reported):
    found = json.loads(saved(page, page.get_by_role("button", name="Save as JSON")))
    assert [each["name"] for each in found["models"]] == list(reported.report.names)
    assert found["models"][1]["size"] == reported.report.quantized[0].size


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_and_can_be_read(browser: Browser, file: Path, scheme: str, width: int):
    """Nothing is wider than the screen, and text stands out from what is behind it."""
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    for page in opened(browser, file, **view):
        page.locator("#layers-table a").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        selectors = ("body", ".soft", "td a", "#drawer .state-quantized", ".card .word", ".beside",
                     "#contents a", ".advice code")  # fmt: skip
        for selector in selectors:
            assert contrast(page, selector) >= 4.5, selector


def test_a_thousand_nodes_are_folded_and_unfolded(browser: Browser, tmp_path: Path):
    b = Builder(0)
    x = b.input(4, 8, 8)
    for block in range(100):
        for part in range(10):
            x = b.op("Relu" if part % 2 else "Neg", x, name=f"/body/{block // 10}/{block}/{part}")
    text, _ = onnxq.report(b.model(x))
    file = tmp_path / "large.html"
    file.write_text(text, encoding="utf-8")
    for page in opened(browser, file):
        page.locator("#graph").scroll_into_view_if_needed()
        nodes = page.locator("#graph g.node")
        expect(nodes.first).to_be_visible()
        assert 10 <= nodes.count() <= 80
        page.locator("#graph button", has_text="Unfold all").click()
        assert nodes.count() == 1002
        page.locator("#graph button", has_text="Fold").last.click()
        assert nodes.count() <= 80
        folders = page.locator("#graph g.folder").count()
        page.locator("#graph g.folder").first.press("Enter")
        assert page.locator("#graph g.folder").count() != folders


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
