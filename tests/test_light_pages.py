"""What a build makes of the pages: formulas without scripts, rules and fonts cut to their use."""

import io
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("ziamath")
pytest.importorskip("tinycss2")
TTFont = pytest.importorskip("fontTools.ttLib").TTFont

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))
formulas, lean, searching = map(import_module, ("formulas", "lean", "searching"))

sys.path.pop(0)


@pytest.mark.parametrize("latex", [r"\unknown", r"\frac{a", r"x_12", r"\begin{tikz}a\end{tikz}"])
def test_what_cannot_be_set_is_refused(latex):
    with pytest.raises(ValueError):
        formulas.mathml(latex)


def children(latex, block=False):
    return [child.tag for child in formulas.ElementTree.fromstring(formulas.mathml(latex, block))]


def test_a_formula_has_the_parts_that_tex_gives_it():
    assert children(r"\tfrac14 < 1") == ["mfrac", "mo", "mn"]
    assert children(r"\bar d_{s}", block=True) == ["msub"]
    assert children(r"\underbrace{a}_{b}", block=True) == ["munder"]
    assert children(r"\log p") == ["mi", "mo", "mspace", "mi"]
    assert children(r"\log(p)") == ["mi", "mo", "mo", "mi", "mo"]
    assert "(1)" not in formulas.mathml(formulas.TAG.sub("", r"a = b \tag{1}"))


def test_rules_for_what_is_on_no_page_go():
    css = """
    .used, .gone > a { color: red }
    .gone:hover { color: red }
    a.used:not(.gone)::before { content: "x" }
    @media print { #gone { x: y } .used[data-x="gone"] { x: y } }
    @media screen { .gone { x: y } }
    .bs-tooltip-auto .used { x: y }
    """
    kept = lean.lean(css, {"a", "used"}, Path())
    assert kept.count("{") == 5
    assert ".used{color: red}" in kept
    assert "screen" not in kept and "#gone" not in kept and ".gone >" not in kept


def test_the_font_of_formulas_holds_what_they_use():
    font = TTFont(io.BytesIO(lean.mathematics(["<math><mi>x</mi><mo>≤</mo></math>"])))
    assert {ord("x"), ord("≤"), 0x1D465, lean.ROOT} <= set(font.getBestCmap())
    assert ord("y") not in font.getBestCmap()
    variants = font["MATH"].table.MathVariants
    sign = font.getBestCmap()[lean.ROOT]
    made = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(sign)]
    taller = [record.VariantGlyph for record in made.MathGlyphVariantRecord]
    assert len(taller) > 1
    assert {font["hmtx"][name][0] for name in taller} == {font["hmtx"][sign][0]}


def test_a_build_that_writes_no_page_leaves_the_index_as_it_was(tmp_path):
    index = tmp_path / "searchindex.js"
    index.write_text("Search.setIndex({})")
    builder = SimpleNamespace(format="html")  # without the indexer that a written page brings
    searching.write(SimpleNamespace(builder=builder, outdir=tmp_path), None)
    assert index.read_text() == "Search.setIndex({})"
