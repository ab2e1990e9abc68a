"""Figures that move: in a browser, by mouse, finger and keys, with the numbers of the networks."""

import io
import re
from collections import Counter
from html import unescape

import pytest
import torch
from PIL import Image, ImageChops
from torch import nn

from paperrepro import figures
from paperrepro.figures import FIGURES
from paperrepro.figures.numbers import networks_table, one_channel
from paperrepro.models.fasternet import PConv
from paperrepro.models.local_global import MaxRelative
from paperrepro.models.rapidnet import multi_level_dilated_conv
from paperrepro.reparam import reparameterize

STRICT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a figure from disk, alone on its page; every fault of the page fails the test."""
    pages, faults = [], []

    def open_figure(name, **settings):
        path = tmp_path / f"{name}.html"
        policy = f'<meta http-equiv="Content-Security-Policy" content="{STRICT}">'
        head = f'<meta charset="utf-8">{policy}'
        body = f'<body style="margin:16px">{figures.html(name)}</body>'
        path.write_text(f"<!doctype html><html>{head}{body}</html>", encoding="utf-8")
        size = {"width": 390, "height": 844}
        page = browser.new_page(offline=True, viewport=size, **settings)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: line.type == "error" and faults.append(line.text))
        page.on(
            "request", lambda request: request.url == path.as_uri() or faults.append(request.url)
        )
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_figure
    for page in pages:
        page.close()
    assert not faults, faults


def said(page) -> str:
    return page.locator(".pr-readout").inner_text()


def numbers(text: str) -> list[float]:
    text = text.replace("−", "-").replace(",", "")
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]


def shot(place) -> Image.Image:
    return Image.open(io.BytesIO(place.screenshot())).convert("RGB")


def slide(page, label, steps):
    """Moves a slider by the arrow keys, as who has no mouse does."""
    field = page.get_by_label(label, exact=True)
    field.focus()
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")


TEXTS = """() => [...document.querySelectorAll("svg text")].map(text => text.textContent)"""


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_the_still_picture_is_what_the_script_draws_first(opened, name):
    live = opened(name, reduced_motion="reduce")
    still = opened(name, java_script_enabled=False)
    svg = "svg.pr-svg"
    for part in ("text", "rect", "circle"):
        assert live.locator(f"{svg} {part}").count() == still.locator(f"{svg} {part}").count()
    drawn = re.findall(r"<text[^>]*>([^<]*)<", figures.html(name))
    assert [unescape(text) for text in drawn] == live.evaluate(TEXTS)
    drawn_twice = [shot(page.locator(svg)) for page in (live, still)]
    assert max(most for _, most in ImageChops.difference(*drawn_twice).getextrema()) <= 16
    assert still.locator(".pr-controls > *").count() == 0
    assert said(still) == FIGURES[name].alt() == still.locator("svg desc").text_content()
    words = " ".join([said(live), *live.evaluate(TEXTS), live.locator(".pr-controls").inner_text()])
    facts = {number for number in numbers(said(still)) if number >= 40}
    assert facts <= set(numbers(words)) or name == "speed"  # of which two are ends of a range
    assert still.locator("svg").get_attribute("role") == "img"
    assert live.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = "() => [...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect())"
    for box in live.evaluate(f"({sizes})().map(b => [b.left, b.right, b.top])"):
        assert box[0] >= 0 and box[1] <= 390


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_scheme(opened, scheme):
    page = opened("reparameterization", color_scheme=scheme)
    color = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (sum(map(int, re.findall(r"\d+", color))) > 380) == (scheme == "dark")


@pytest.mark.slow
def test_kernels_add_up_to_what_torch_computes(opened):
    block, _ = one_channel()
    fused = reparameterize(block)
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    assert torch.allclose(block(image), fused(image))
    page = opened("reparameterization", reduced_motion="reduce")
    cells = "svg [data-cell^='{} ']"
    shown = [numbers(t)[0] for t in page.locator(cells.format("fused")).all_text_contents()]
    assert shown == pytest.approx(fused.weight.flatten().tolist())
    branches = [f"svg [data-cell^='{key} ']" for key in ("conv", "scale", "skip")]
    parts = [page.locator(branch).all_text_contents() for branch in branches]
    sums = [sum(numbers(cell)[0] for cell in column) for column in zip(*parts, strict=True)]
    assert sums == pytest.approx(shown)
    # The arrow keys choose a cell, whose sum is read out.
    page.locator("svg").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    *terms, total = numbers(said(page).partition("column 1:")[2])
    assert sum(terms) == pytest.approx(total) == pytest.approx(fused.weight[0, 0, 0, 0].item())
    slide(page, "Step", -3)
    assert page.locator(cells.format("fused")).count() == 0
    trained = page.locator(cells.format("conv")).all_text_contents()
    weight = block["conv"].conv.weight
    assert [numbers(t)[0] for t in trained] == pytest.approx(weight.flatten().tolist())


@pytest.mark.slow
def test_a_partial_convolution_costs_what_it_says(opened):
    page = opened("pconv")
    slide(page, "Channels", 1)
    slide(page, "Map", -1)
    slide(page, "Convolved part r", 1)  # 256 channels, 14 x 14, 1/8
    pconv = PConv(256, 8)
    macs = pconv.conv.weight.numel() * 14 * 14
    memory = 2 * pconv.convolved * 14 * 14 + pconv.conv.weight.numel()
    share = 100 * memory / (2 * 256 * 14 * 14 + nn.Conv2d(256, 256, 3).weight.numel())
    expected = [macs, 100 / 64, memory, share]
    assert numbers(said(page).partition(":")[2]) == pytest.approx(expected, abs=0.01)
    assert f"{pconv.convolved} convolved" in page.evaluate(TEXTS)


@pytest.mark.slow
def test_a_kernel_has_so_many_taps_on_the_map(opened):
    page = opened("kernel")
    page.get_by_label("Stage", exact=True).select_option("3")
    slide(page, "Kernel K", -2)  # 13 to 9, on 7 x 7
    page.locator("svg").focus()
    for key in ["ArrowLeft"] * 9 + ["ArrowUp"] * 2:
        page.keyboard.press(key)
    conv = nn.Conv2d(1, 1, 9, padding=4, bias=False)
    nn.init.ones_(conv.weight)
    used = conv(torch.ones(1, 1, 7, 7))[0, 0, 1, 0].item()
    found = numbers(said(page))
    assert found[:6] == [9, 4, 2, 1, used, 81]
    assert found[-1] == 8 * 32 + 1


def connected(graph: str, distance: int, side: int, row: int, column: int) -> set[int]:
    """The pixels whose change the graph's output at one pixel feels, by autograd."""
    image = torch.randn(1, 1, side, side, dtype=torch.float64)
    layer, found = MaxRelative(graph, distance), set()
    before = layer(image)[0, 1, row, column]
    for pixel in range(side * side):
        raised = image.clone()
        raised.view(-1)[pixel] += 100
        if layer(raised)[0, 1, row, column] != before and pixel != row * side + column:
            found.add(pixel)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "distance", "side"), [("mgc", 4, 14), ("svga", 3, 8), ("mgc", 8, 7)]
)
def test_links_are_those_of_the_graph(opened, graph, distance, side):
    page = opened("graph")
    page.get_by_label("Graph", exact=True).select_option(graph)
    slide(page, "Distance K", distance - 4)
    slide(page, "Side of the map", side - 14)
    page.locator("svg").focus()
    page.keyboard.press("ArrowDown")
    place = re.search(r"row (\d+), column (\d+) has (\d+) link", said(page))
    row, column, count = (int(number) for number in place.groups())
    links = "() => [...document.querySelectorAll('[data-link]')].map(c => +c.dataset.link)"
    expected = connected(graph, distance, side, row - 1, column - 1)
    assert set(page.evaluate(links)) == expected and count == len(expected)
    island = "() => [...document.querySelectorAll('[data-island]')].map(c => +c.dataset.island)"
    islands = page.evaluate(island)
    assert all(islands[pixel] == islands[(row - 1) * side + column - 1] for pixel in expected)
    if len(set(islands)) > 1:
        assert f"{len(set(islands))} islands of {max(Counter(islands).values())}" in said(page)
    else:
        assert "connected" in said(page)


@pytest.mark.slow
def test_a_finger_picks_a_pixel(opened):
    page = opened("graph", has_touch=True)
    before = said(page)
    box = page.locator("svg").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.87, box["y"] + box["height"] * 0.87)
    assert "row 13, column 13" in said(page) != before


@pytest.mark.slow
def test_stacked_kernels_see_what_autograd_sees(opened):
    page = opened("dilation")
    slide(page, "Layers", 1)
    mldc = multi_level_dilated_conv(1)
    layer = nn.ModuleDict({name: branch.conv for name, branch in mldc.items()}).double()
    for conv in layer.values():
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(2):
        y = sum(conv(y) for conv in layer.values())
    y[0, 0, 15, 15].backward()
    counts = [int(count) for count in x.grad.flatten() if count]
    drawn = "() => [...document.querySelectorAll('[data-paths]')].map(r => +r.dataset.paths)"
    assert page.evaluate(drawn) == counts
    assert numbers(said(page))[-5:-2] == [len(counts), 13 * 13, 13]


@pytest.mark.slow
def test_the_axis_changes_the_order(opened):
    table = networks_table()
    page = opened("speed", reduced_motion="reduce")
    dots = """() => [...document.querySelectorAll(".pr-dot")].map(
        dot => [dot.getAttribute("visibility"), +dot.getAttribute("cx")])"""
    for axis in ("macs", "params", "cpu", "phone"):
        page.get_by_label("Across", exact=True).select_option(axis)
        places = page.evaluate(dots)
        known = table[axis].notna()
        assert [shown == "visible" for shown, _ in places] == known.tolist()
        order = [x for (shown, x) in places if shown == "visible"]
        ranks = table.loc[known, axis].rank(method="first")
        by_value = [order[i] for i in ranks.argsort()]
        assert by_value == sorted(order)
    pair = table[["macs", "phone"]].dropna()
    spearman = pair["macs"].rank().corr(pair["phone"].rank())
    assert f"{spearman:.2f}" in said(page)
    page.locator(".pr-dot").first.focus()
    assert said(page).startswith("mobileone_s0: 71.4 %, 0.79 ms")


def test_a_wrong_name_names_the_right_ones():
    with pytest.raises(ValueError, match="reparameterization, pconv"):
        figures.html("nothing")


def test_show_says_in_words_what_cannot_be_seen(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda data, raw: shown.append(data))
    figures.show("pconv")
    assert (
        shown[0].keys() == {"text/html", "text/plain"} and "96 channels" in shown[0]["text/plain"]
    )


def test_a_figure_loads_nothing_and_leaves_no_name():
    for name in FIGURES:
        text = figures.html(name)
        assert not re.search(r"(?:src|href)=|@import|url\(|fetch\(|eval\(", text)
        assert text.count("<script") == 2 and figures.script(name).startswith("(() => {")


def test_thumbnails_show_their_idea():
    """Counted in the drawing: 9 taps merged, 4 of 16 channels, 5 joined pixels, 17 of 49 taps."""
    from paperrepro.figures.ideas import IDEAS, thumbnail

    filled = {name: thumbnail(name).count('fill="var(--idea)"') for name in IDEAS}
    assert filled == {
        "mobileone": 9 + 1 + 1 + 9 + 9,
        "fasternet": 4 + 4,
        "replknet": 144,
        "mobilevigv2": 5,
        "rapidnet": 17,
        "reparameterization": 1,
    }
    with pytest.raises(ValueError, match="rapidnet"):
        thumbnail("resnet")
