"""Figures that move: in a browser, by mouse, finger and keys, with the numbers of the networks."""

import io
import re
from collections import Counter
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from scipy import stats
from torch import nn
from torchvision.transforms import v2

from paperrepro import figures
from paperrepro.analysis.attribution import attribute
from paperrepro.analysis.kernels import large_kernels
from paperrepro.claims.compare import compare
from paperrepro.claims.outcomes import load_outcomes
from paperrepro.datasets import Shapes
from paperrepro.export.simulate import rounded_weight
from paperrepro.figures import FIGURES
from paperrepro.figures.measured import FORMS, RATES
from paperrepro.figures.numbers import networks_table, one_channel
from paperrepro.files import data_folder
from paperrepro.models.fasternet import PConv
from paperrepro.models.local_global import MaxRelative
from paperrepro.models.rapidnet import multi_level_dilated_conv
from paperrepro.reparam import reparameterize
from paperrepro.results import load_correct, load_result
from paperrepro.training.optimizers import Average
from paperrepro.training.recipe import Recipe
from paperrepro.training.schedules import learning_rate
from paperrepro.weights import load_model

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


@pytest.mark.slow
def test_intervals_are_those_of_so_many_seeds(opened):
    page = opened("interval")
    slide(page, "Seeds", 2)
    correct = {name: answers[:5] for name, answers in load_correct("fasternet-block").items()}
    top1 = load_result("experiment-fasternet-block").table.query("seed < 5")
    means = top1.groupby("variant")["top1"].mean()
    lines = page.locator("[data-from]")
    for i, label in enumerate(("LayerNorm", "ReLU", "r = 1/2", "r = 1/8")):
        found = compare(correct, {label: 1, "r = 1/4": -1})
        low, high = (float(lines.nth(i).get_attribute(f"data-{end}")) for end in ("from", "to"))
        assert (low + high) / 2 == pytest.approx(means[label] - means["r = 1/4"], abs=0.02)
        level = 2 * stats.t.cdf((high - low) / 2 / found.error, found.freedom) - 1
        assert numbers(said(page))[:2] == [5, pytest.approx(100 * level, abs=0.2)]
    slide(page, "Seeds", 8)  # all that there are: the stored outcomes
    outcomes = load_outcomes().query("result == 'experiment-fasternet-block'")
    for name, low, verdict in outcomes[["statement", "low", "verdict"]].itertuples(index=False):
        told = re.search(re.escape(name.split(" against")[0]) + r" (.*?): ([a-z ]+)\.", said(page))
        assert numbers(told[1])[1] == pytest.approx(low, abs=0.006) and told[2] == verdict


@pytest.mark.slow
@pytest.mark.parametrize(("k", "distance", "seen"), [(3, 12, True), (3, 16, False), (13, 52, True)])
def test_a_pixel_sees_the_cue_that_its_gradient_reaches(opened, k, distance, seen):
    page = opened("cue")
    page.get_by_label("Kernels", exact=True).select_option(str(k))
    slide(page, "Distance of the cue", (distance - 32) // 2)
    blocks = [nn.Conv1d(1, 1, k, padding=k // 2, bias=False) for _ in range(2)]
    network = nn.Sequential(nn.Conv1d(1, 1, 4, stride=4, bias=False), *blocks).double()
    for conv in network:
        nn.init.ones_(conv.weight)
    row = torch.zeros(1, 1, 240, dtype=torch.float64, requires_grad=True)
    network(row)[0, 0, 98 // 4].backward()
    reached = row.grad[0, 0].nonzero().flatten()
    field = page.locator("[data-from]")
    assert int(field.get_attribute("data-from")) == reached[0]
    assert int(field.get_attribute("data-to")) == reached[-1] + 1
    cue = slice(98 + distance - 3, 98 + distance + 3)
    assert bool(row.grad[0, 0, cue].any()) == seen == ("lies inside" in said(page))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cosine", "step", "poly"])
def test_rate_and_average_are_the_trainers(opened, kind):
    page = opened("schedule")
    page.get_by_label("Schedule", exact=True).select_option(kind)
    page.get_by_label("Decay of the average", exact=True).select_option("0.999")
    slide(page, "Epochs", -1)
    slide(page, "Warm-up", 1)
    recipe = Recipe(
        model="mobileone_s0", source="", epochs=20, batch_size=1, optimizer="sgd", lr=1.0,
        weight_decay=0, warmup_epochs=3, warmup_lr=0, schedule=kind,
        milestones=(6, 12, 18) if kind == "step" else (),
    )  # fmt: skip
    places = [(x, y) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)",
        page.locator(".pr-rate").get_attribute("d"))]  # fmt: skip
    for i, (_, y) in enumerate(places):
        assert (140 - float(y)) / 108 == pytest.approx(learning_rate(recipe, i / 10), abs=1e-3)
    # One weight for each step, 1 from its step on: the average of weight n is the share of the
    # steps from n on.
    weights = nn.ParameterList([nn.Parameter(torch.zeros(440, dtype=torch.float64))])
    average = Average(weights, 0.999)
    for step in range(440):
        weights[0].data[step] = 1
        average.update()
    since = torch.cat([average.module[0].data, torch.zeros(1)])
    drawn = page.locator("[data-share]").evaluate_all("bars => bars.map(b => +b.dataset.share)")
    assert sum(drawn[45:]) == pytest.approx(since[330].item(), abs=1e-4)
    assert sum(drawn) == pytest.approx(1, abs=1e-3)
    assert numbers(said(page))[-1] == pytest.approx(100 * (1 - since[1].item()), abs=0.06)


@pytest.mark.slow
def test_waiting_is_the_measured_one_and_grows_without_end(opened):
    """The stored benchmark drew from the times themselves, the figure from their percentiles."""
    page = opened("waiting")
    stored = load_result("deployment").table.query("network == 'mobileone_s0'").set_index("form")
    forms = FIGURES["waiting"].numbers()["forms"]
    for form, row in zip(forms, stored.loc[list(FORMS)].itertuples(), strict=True):
        for load, known in ((0.5, row.p99_at_50), (0.8, row.p99_at_80)):
            drawn = [slow for _, slow in form["answers"]]
            rates = RATES[: len(drawn)]
            found = np.interp(1000 * load / form["ms"], rates, drawn)
            assert found == pytest.approx(known, rel=0.2)  # between two rates a straight line
    slide(page, "Requests in a second", 3)
    median, slow = forms[1]["answers"][RATES.index(100)]
    assert f"ONNX Runtime {median:.1f} and {slow:.1f} ms" in said(page)
    assert "PyTorch, eager: too slow" in said(page)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "scales"), [(8, "layer"), (4, "layer"), (3, "channel")])
def test_weights_are_rounded_as_the_library_rounds(opened, bits, scales):
    page = opened("rounding")
    page.get_by_label("Bits", exact=True).select_option(str(bits))
    page.get_by_label("Scales", exact=True).select_option(scales)
    slide(page, "Channel", 5)
    model = reparameterize(load_model(data_folder("weights") / "shapes-mobileone.safetensors"))
    weight = dict(model.named_parameters())["stages.0.blocks.0.conv.weight"].detach().double()
    grid = rounded_weight(weight, bits, scales == "channel")
    drawn = page.locator("[data-grid]").evaluate_all("dots => dots.map(d => +d.dataset.grid)")
    assert drawn == pytest.approx(grid[4].flatten().tolist(), abs=2e-4)
    lost = (grid - weight).flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
    bars = page.locator("[data-share]").evaluate_all("bars => bars.map(b => +b.dataset.share)")
    assert bars == pytest.approx(lost.tolist(), abs=1e-3)
    assert f"and channel {lost.argmax() + 1} by" in said(page)


@pytest.mark.slow
def test_the_way_ends_at_the_library_s_attribution(opened):
    page = opened("path")
    found = FIGURES["path"].numbers()
    model = reparameterize(load_model(data_folder("weights") / "shapes-rapidnet.safetensors"))
    picture, classes, _ = Shapes(24, size=64, seed=2).draw([5])
    image = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(picture / 255)
    known = attribute(model, image[0], "integrated-gradients", target=int(classes[0]))
    sums = known.map.reshape(16, 4, 16, 4).sum((1, 3)).flatten()
    assert found["maps"][-1] == pytest.approx((100 * sums).tolist(), abs=3)
    logits = model(torch.cat([torch.zeros_like(image), image]))[:, int(classes[0])]
    rise = (logits[1] - logits[0]).item()
    assert numbers(said(page)) == [pytest.approx(rise, abs=0.03)] * 2
    slide(page, "Along the way", -8)
    half = (model(image / 2)[0, int(classes[0])] - logits[0]).item()
    assert numbers(said(page)) == [50] + [pytest.approx(half, abs=0.03)] * 2
    assert page.locator("[data-sum]").count() == 9


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "form"), [(2, "merged"), (1, "large")])
def test_a_crop_keeps_what_it_says(opened, stage, form):
    page = opened("crop")
    page.get_by_label("Stage", exact=True).select_option(str(stage))
    page.get_by_label("Kernel", exact=True).select_option(form)
    slide(page, "Cropped to", -2)  # from 11 x 11 to 7 x 7
    model = load_model(data_folder("weights") / "shapes-replknet.safetensors")
    weight = large_kernels(model)[f"stages.{stage}.blocks.0.large_kernel"][form]
    k = weight.shape[-1]
    cropped = weight[:, :, k // 2 - 3 : k // 2 + 4, k // 2 - 3 : k // 2 + 4]
    kept = 100 * (cropped.double().norm() / weight.double().norm()).item() ** 2
    expected = [stage + 1, k, 7, 7, kept, 100 * 49 / k**2]
    assert numbers(said(page))[:6] == pytest.approx(expected, abs=0.06)
    # Which taps a gradient can reach: those that ever lie on the map.
    side = 16 >> stage
    conv = nn.Conv2d(1, 1, k, padding=k // 2, bias=False)
    conv(torch.ones(1, 1, side, side)).sum().backward()
    met = int(conv.weight.grad[0, 0, k // 2].ne(0).sum())
    assert numbers(said(page))[6:] == [met, met, side, side]


@pytest.mark.slow
def test_decisions_are_the_published_ones(opened):
    page = opened("bias")
    page.get_by_label("Network", exact=True).select_option("torchvision/resnet50")
    page.get_by_label("Counted", exact=True).select_option("two")
    table = load_result("shape-bias-public").table
    drawn = page.locator("[data-share]").evaluate_all("bars => bars.map(b => +b.dataset.share)")
    for start, source, name in ((0, "caffe_and_humans", "humans"), (2, "torchvision", "resnet50")):
        rows = table[(table["source"] == source) & (table["name"] == name)]
        assert drawn[start::4] == pytest.approx(rows["shape_bias"].tolist(), abs=1e-3)
    told = numbers(said(page).partition(":")[2])[:3]
    assert told == rows[["n_shape", "n_texture", "n_neither"]].iloc[0].tolist()


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
