"""Drawings: every layer of a module once, with its numbers, as a picture that can be read."""

import re
import xml.etree.ElementTree as ET
from functools import cache

import pytest
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner

import paperrepro
from paperrepro.claims.reproduce import network
from paperrepro.cli import app
from paperrepro.models.layers import Branches, Chain, ConvNorm, Residual

SVG = "{http://www.w3.org/2000/svg}"
BLOCKS = {
    "mobileone_s0": "stages.1.blocks.2",
    "mobileone_s4": "stages.3.blocks.1",
    "fasternet_t1": "stages.1.blocks.0",
    "replknet_31b": "stages.0.blocks.0",
    "mobilevig_ti": "stages.3.blocks.0",
    "mobilevigv2_ti": "stages.2.blocks.7",
    "rapidnet_ti": "stages.2.blocks.7",
}


@cache
def drawing(name: str, fused: bool = False):
    return paperrepro.draw(network(name), block=BLOCKS.get(name), fused=fused)


def drawn_layers(svg: str) -> dict[str, str]:
    """The text beside each layer, by its name in the module."""
    found = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        for path in group.get("data-layer", "").split():
            assert path not in found, f"{path} is drawn twice"
            found[path] = " ".join(text.text for text in group.iter(f"{SVG}text"))
    return found


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that are drawn as one: those without children, and squeeze-and-excitation."""
    whole = torchvision.ops.SqueezeExcitation
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, whole)
        or not list(layer.children())
        and not any(isinstance(up, whole) for up in parents(module, name))
    }


def parents(module: nn.Module, name: str):
    words = name.split(".")
    return [module.get_submodule(".".join(words[:i])) for i in range(len(words))]


def expected(conv: nn.Conv2d) -> set[str]:
    into, out = conv.in_channels, conv.out_channels
    rows, columns = conv.kernel_size
    words = {
        f"{rows} × {columns}",
        f"{into} channels" if into == out else f"{into} → {out} channels",
    }
    words |= {f"stride {conv.stride[0]}"} if conv.stride[0] > 1 else set()
    words |= {f"dilation {conv.dilation[0]}"} if conv.dilation[0] > 1 else set()
    words |= {"depthwise"} if conv.groups == into > 1 else set()
    return words


@pytest.mark.parametrize("name", BLOCKS)
def test_each_layer_of_a_block_is_drawn_once_with_its_numbers(name):
    block = network(name).get_submodule(BLOCKS[name])
    drawn = drawn_layers(drawing(name).svg())
    layers = layers_of(block)
    assert drawn.keys() == layers.keys()
    for path, layer in layers.items():
        text = drawn[path].replace("\u00a0", " ")
        if isinstance(layer, nn.Conv2d):
            missing = {word for word in expected(layer) if word not in text}
            assert not missing, f"{path}: {missing} not in {text!r}"
            depthwise = layer.groups == layer.in_channels > 1
            assert ("depthwise" in text) == depthwise
            assert ("stride" in text, "dilation" in text) == (
                layer.stride[0] > 1,
                layer.dilation[0] > 1,
            )
        elif isinstance(layer, nn.BatchNorm2d):
            assert text in ("BatchNorm", "BN")


@pytest.mark.parametrize("name", ["mobileone_s0", "replknet_31b", "rapidnet_ti"])
def test_beside_it_stands_what_is_left_after_folding(name):
    both = drawing(name, True)
    block = paperrepro.reparameterize(network(name).get_submodule(BLOCKS[name]))
    fused = drawn_layers(paperrepro.draw(block, size=7).svg())
    assert fused.keys() == layers_of(block).keys()
    assert both.alt.count("BatchNorm") > 0
    assert "BatchNorm" not in both.alt.partition("re-parameterized")[2]
    pictures = both.html().count("<svg")
    assert pictures == 2 and both.svg().count("<svg") == 1


def test_the_channels_that_pass_are_counted():
    words = " ".join(drawn_layers(drawing("fasternet_t1").svg()).values())
    text = " ".join(t.text or "" for t in ET.fromstring(drawing("fasternet_t1").svg()).iter())
    assert "32 channels" in words
    assert "96 channels pass untouched" in text


def test_equal_branches_are_drawn_once_with_their_number():
    drawn = drawn_layers(drawing("mobileone_s0").svg())
    assert {f"conv.conv{i}.conv" for i in range(4)} <= drawn.keys()
    boxes = ET.fromstring(drawing("mobileone_s0").svg()).iter(f"{SVG}g")
    together = [g for g in boxes if len(g.get("data-layer", "").split()) == 4]
    assert len(together) == 2  # the convolution and its BatchNorm
    assert "×\u00a04" in drawing("mobileone_s0").svg()


@pytest.mark.slow
@pytest.mark.parametrize("name", paperrepro.list_models())
def test_every_network_is_one_strip_with_its_maps(name):
    model = network(name)
    root = ET.fromstring(paperrepro.draw(model).svg())
    rows = {g.get("data-part"): g for g in root.iter(f"{SVG}g") if g.get("data-part")}
    assert list(rows) == ["stem", *[f"stages.{i}" for i in range(4)], "head"]
    for feature in model.feature_info:
        side = 224 // feature.reduction
        text = " ".join(t.text for t in rows[feature.module].iter(f"{SVG}text"))
        assert f"{feature.channels} × {side} × {side}" in text.replace("\u00a0", " ")
    assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text


class Own(nn.Module):
    """A user's network, in which something is used twice and something not at all."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Hardswish())
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.inner = torchvision.models.resnet.BasicBlock(8, 8)

    def forward(self, x):
        x = self.second(self.first(x))
        return self.inner(self.inner(x))


def test_a_network_of_ones_own_is_drawn_in_the_order_in_which_it_runs():
    svg = paperrepro.draw(Own(), size=20).svg()
    drawn = drawn_layers(svg)
    assert list(drawn) == ["first", "second.0", "second.1", "inner"]
    assert "4 groups" in drawn["second.0"] and "BasicBlock" in drawn["inner"]
    assert "8\u00a0×\u00a010\u00a0×\u00a010" in svg


def test_a_block_of_torchvision_shows_its_layers():
    block = torchvision.models.resnet18().layer2[0]
    drawn = drawn_layers(paperrepro.draw(block).svg())
    assert drawn.keys() == {name for name, m in block.named_modules() if not list(m.children())}
    assert "64 → 128 channels, stride 2" in drawn["conv1"]


def test_drawing_changes_nothing():
    block = Residual(pw=ConvNorm(4, 4, act="relu"), drop=nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    paperrepro.draw(block, size=8, fused=True)
    assert all(part.training for part in block.modules())
    assert not any(part._forward_hooks for part in block.modules())
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_names_cannot_break_the_picture():
    odd = type('Odd<&">', (nn.Identity,), {"forward": lambda self, x: x + 1})
    drawing = paperrepro.draw(Chain(odd=odd(), conv=nn.Conv2d(2, 2, 1)), size=4, title='<&">')
    root = ET.fromstring(drawing.svg())
    assert root.find(f"{SVG}title").text == '<&">'
    assert 'Odd<&">' in drawn_layers(drawing.svg())["odd"]
    assert drawing.alt in root.get("aria-label")


def test_refusals_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"size=\(C, H, W\)"):
        paperrepro.draw(nn.Conv2d(3, 4, 1), size=(5, 8, 8))
    with pytest.raises(ValueError, match="stem, stages, head"):
        paperrepro.draw(network("rapidnet_ti"), block="stages.9")
    with pytest.raises(ValueError, match="ends in .svg"):
        paperrepro.draw(nn.Conv2d(3, 4, 1)).save(tmp_path / "x.png")


def test_the_command_writes_the_picture_and_says_it_in_words(tmp_path):
    out = tmp_path / "block.svg"
    options = ["--block", "stages.1.blocks.2", "--fused", "--out", str(out)]
    result = CliRunner().invoke(app, ["draw", "mobileone_s0", *options])
    assert result.exit_code == 0, result.output
    assert "128 × 28 × 28 in; the sum of 3 branches" in result.stdout
    assert ET.parse(out).getroot().tag == f"{SVG}svg"
    result = CliRunner().invoke(app, ["draw", "mobileone_s0", "--block", "stages.7"])
    assert result.exit_code == 2 and "its parts are: stem, stages, head" in result.stderr


OVERLAPS = """() => {
    const texts = [...document.querySelectorAll("svg.pr-svg text")].map(text => {
        const box = text.getBoundingClientRect();
        return {words: text.textContent, svg: text.ownerSVGElement, box};
    });
    const faults = [];
    texts.forEach((a, i) => {
        const canvas = a.svg.getBoundingClientRect();
        if (a.box.left < canvas.left - 0.5 || a.box.right > canvas.right + 0.5 ||
            a.box.top < canvas.top - 0.5 || a.box.bottom > canvas.bottom + 0.5)
            faults.push(`${a.words} leaves the canvas`);
        if (parseFloat(getComputedStyle(a.svg.querySelector("text")).fontSize) *
            canvas.width / a.svg.viewBox.baseVal.width < 11.5)
            faults.push(`${a.words} is too small`);
        for (const b of texts.slice(i + 1))
            if (a.box.left < b.box.right - 1 && b.box.left < a.box.right - 1 &&
                a.box.top < b.box.bottom - 3 && b.box.top < a.box.bottom - 3)
                faults.push(`${a.words} | ${b.words}`);
    });
    if (document.documentElement.scrollWidth > innerWidth) faults.push("scrolls sideways");
    return [texts.length, [...new Set(faults)]];
}"""

CONTRAST = """() => {
    const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = rgb => {
        const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const page = getComputedStyle(document.body).backgroundColor;
    const found = [];
    for (const text of document.querySelectorAll("svg.pr-svg text")) {
        const box = text.getBoundingClientRect();
        const x = box.left + box.width / 2, y = box.top + box.height / 2;
        let ground = page;
        for (const shape of text.ownerSVGElement.querySelectorAll("rect")) {
            const r = shape.getBoundingClientRect(), fill = getComputedStyle(shape).fill;
            if (fill !== "none" && x > r.left && x < r.right && y > r.top && y < r.bottom &&
                shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)
                ground = fill;
        }
        const pair = [light(getComputedStyle(text).fill), light(ground)].sort((a, b) => b - a);
        found.push([(pair[0] + 0.05) / (pair[1] + 0.05), text.textContent]);
    }
    return found.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.mark.slow
def test_text_stands_clear_and_reads_in_both_schemes(browser):
    own = Branches(
        a=nn.Conv2d(1000, 1000, 31, padding=15, groups=1000),
        b=Chain(c=nn.Conv2d(1000, 2000, 3, padding=2, dilation=2), d=nn.Conv2d(2000, 1000, 1)),
    )
    drawings = [drawing(name, True) for name in BLOCKS]
    drawings += [paperrepro.draw(own, size=32), paperrepro.draw(torchvision.models.resnet18())]
    drawings += [paperrepro.draw(network(n), fused=True) for n in ("mobilevigv2_b", "replknet_xl")]
    body = "".join(d.html() for d in drawings)
    page = browser.new_page(offline=True)
    for width, scheme in ((390, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        # The theme's choice wins over the system's.
        asked = {"light": "dark", "dark": "light"}[scheme]
        for theme, shown in (("", scheme), (f' data-theme="{asked}"', asked)):
            ground = {"light": "#ffffff", "dark": "#121417"}[shown]
            page.set_content(
                f'<!doctype html><html{theme}><body style="margin:16px;background:{ground}">{body}'
            )
            contrast, words = page.evaluate(CONTRAST)
            assert contrast >= 4.5, f"{shown}: {words} has a contrast of {contrast:.1f}"
        count, faults = page.evaluate(OVERLAPS)
        assert count > 200 and not faults, f"{width}: " + "\n".join(faults[:20])
    page.close()


def test_a_file_names_no_other_file():
    svg = drawing("rapidnet_ti", True).svg()
    assert not re.search(r"(href|src)=|url\(|<script|http(?!://www.w3.org/2000/svg)", svg)


def test_a_caption_stands_below_the_drawing_and_is_escaped():
    drawing = paperrepro.draw(nn.Conv2d(3, 8, 3), caption="Look at <this>")
    assert drawing.html().endswith("Look at &lt;this&gt;</figcaption></figure>")
    assert "figcaption" not in paperrepro.draw(nn.Conv2d(3, 8, 3)).html()
