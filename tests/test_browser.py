"""The built pages in a browser: phone, tablet and desktop, light and dark, opened from disk."""

from itertools import product
from pathlib import Path
from urllib.parse import quote, urlparse
from urllib.request import url2pathname

import pytest
from test_book import PAGES

pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1280}
SCHEMES = ("light", "dark")
# Beyond what axe-core calls serious or critical.
HEADINGS = {"heading-order", "page-has-heading-one", "empty-heading"}

# The pages of functions are of one make: one long one and one of another kind stand for all.
LOOKED_AT = [name for name in PAGES if not name.startswith("api/")] + ["api/weights", "api/cli"]

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser):
    """A page that notes its script errors and every request that would leave the machine."""
    page = browser.new_page(offline=True, reduced_motion="reduce")
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(f"script error: {error}"))
    page.on(
        "console",
        lambda line: line.type == "error" and page.faults.append(f"console: {line.text}"),
    )
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:"))
            or page.faults.append(f"request: {request.url}")
        ),
    )
    yield page
    page.close()


THIN = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll(".highlight span"))
        if (seen.has(word.className))
            word.replaceWith(word.textContent);
        else seen.add(word.className);
    for (const row of document.querySelectorAll("tr:nth-child(n + 20)")) row.remove();
}"""
"""Leaves one word of each colour in the code and twenty rows of each table: axe-core would look at
the thousands of others for minutes."""


PLOTS = """() => {
    const plots = [...document.querySelectorAll(".cell_output .text_html img[width]")];
    return plots.flatMap((plot) => {
        const type = 10.4 * plot.clientWidth / plot.getAttribute("width");
        const frame = getComputedStyle(plot.closest(".text_html")).backgroundColor;
        return [
            ...(type < 8.8 ? [`type of ${type.toFixed(1)} points: ${plot.alt}`] : []),
            ...(frame != "rgba(0, 0, 0, 0)" ? [`a second frame: ${plot.alt}`] : []),
        ];
    });
}"""
"""Plots whose type of 10 points (10.4 of CSS, at 100 pixels an inch) would be too small to read,
or that have a frame of the page around their own."""


# Contrast takes axe-core most of its time. It depends on the colours, and all else on the width.
CONTRAST_ONLY = {"runOnly": ["color-contrast"]}
ALL_BUT_CONTRAST = {"rules": {"color-contrast": {"enabled": False}}}


def objections(page, rules):
    """What axe-core finds serious or critical, and every fault of the headings."""
    # Formulas have the colour of the text around them.
    context = {"exclude": [["math"]]}
    result = Axe().run(page, context, {"preload": False, "resultTypes": ["violations"]} | rules)
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: "
        + "; ".join(node["html"][:200] for node in rule["nodes"][:5])
        for rule in result.response["violations"]
        if rule["impact"] in ("serious", "critical") or rule["id"] in HEADINGS
    ]


def show(page, device, scheme):
    page.set_viewport_size({"width": WIDTHS[device], "height": 844})
    page.emulate_media(color_scheme=scheme)


@pytest.mark.parametrize("name", [*LOOKED_AT, "search", "404"])
def test_page_reads_well_at_every_width(site, page, name):
    page.goto((site / f"{name}.html").as_uri())
    for device, scheme in product(WIDTHS, SCHEMES):
        show(page, device, scheme)
        view = f"{device}-{scheme}"
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if beyond > 0:
            page.faults.append(f"{view}: {beyond} pixels to scroll sideways")
        page.faults += [f"{view}: {fault}" for fault in page.evaluate(PLOTS)]
        path = SCREENSHOTS / f"{name.replace('/', '-')}-{view}.jpeg"
        page.screenshot(path=path, type="jpeg", quality=60, full_page=view == "phone-light")
    page.evaluate(THIN)
    # The sidebar shows on the desktop only. Solutions are of the same make as their chapters, which
    # are looked at in all three views.
    views = [
        ("desktop", "light", {}),
        ("desktop", "dark", CONTRAST_ONLY),
        ("phone", "light", ALL_BUT_CONTRAST),
    ]
    for device, scheme, rules in views[:1] if name.startswith("solutions/") else views:
        show(page, device, scheme)
        page.wait_for_timeout(300)  # the theme makes what scrolls reachable by keyboard
        page.faults += [f"{device}-{scheme}: {objection}" for objection in objections(page, rules)]
    assert not page.faults, "\n".join(page.faults)


def test_a_page_forbids_what_comes_from_elsewhere(site, page):
    page.goto((site / "fasternet.html").as_uri())
    refused = page.evaluate(
        """async () => {
            const refused = [];
            const note = (event) => refused.push(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const src = "https://example.org/";
            document.body.append(Object.assign(new Image(), { src }));
            document.body.append(Object.assign(document.createElement("script"), { src }));
            await fetch(src).catch(() => null);
            await new Promise((done) => setTimeout(done, 200));
            return refused;
        }"""
    )
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]


def test_a_first_visit_is_light(site, page):
    heavy, files = [], []
    page.on("requestfinished", lambda request: files.append(request.url))
    for name in PAGES:
        files.clear()
        page.goto((site / f"{name}.html").as_uri(), wait_until="load")
        page.evaluate("document.fonts.ready.then(() => null)")
        local = [Path(url2pathname(urlparse(url).path)) for url in files if url.startswith("file:")]
        weight = sum(path.stat().st_size for path in local) / 1e6
        # One page shows every figure that moves, each with its script.
        most = 25 if name == "figures" else 15
        if len(files) > most or weight > 1.5:
            heavy.append(f"{name}: {len(files)} requests, {weight:.2f} MB")
    assert not heavy, "\n".join(heavy)


FOUND = """async (query) => {
    const [, ...terms] = Search._parseQuery(query);
    const found = Search._performSearch(query, ...terms).reverse();
    return found.map(([page, , anchor]) => page + anchor);
}"""


def test_search_answers_questions_from_prose(site, page):
    page.goto((site / "search.html").as_uri())
    wanted = {
        "finetune": ["own-images"],
        "fine-tune": ["own-images"],
        "my own images": ["own-images"],
        "detection": ["dense-prediction", "own-images"],
        "quantise": ["export-to-iphone", "own-images"],
        "quantization": ["export-to-iphone", "own-images"],
    }
    for query, pages in wanted.items():
        found = [place.partition("#")[0] for place in page.evaluate(FOUND, query)]
        assert set(dict.fromkeys(found[: len(pages)])) == set(pages), (query, found[:6])
    assert not page.evaluate(FOUND, "ImportError"), "the cell of the set-up was searched"


def test_search_finds_each_page_by_its_title(site, page):
    page.goto((site / "search.html").as_uri())
    index = page.evaluate("({names: Search._index.docnames, titles: Search._index.titles})")
    titles = dict(zip(index["names"], index["titles"], strict=True))
    assert titles.keys() == set(PAGES)
    found = {name: page.evaluate(FOUND, title) for name, title in titles.items()}
    lost = {name for name in PAGES if name not in found[name][:3]}
    assert not lost


def test_search_lists_what_it_finds(site, page):
    page.goto((site / "search.html").as_uri() + f"?q={quote('partial convolution')}")
    page.wait_for_selector('#search-results a[href^="fasternet.html"]', timeout=5000)
    assert not page.faults
