"""What of the style sheets and fonts the pages use; the theme brings fifteen times as much."""

import base64
import io
import re
from importlib.resources import files
from unicodedata import normalize

import tinycss2
from fontTools.subset import Options, Subsetter, load_font, save_font

WORD = re.compile(r"[\w-]+")
# Names that a script puts together: Bootstrap's "bs-" + kind + "-auto".
MADE = re.compile(r"bs-.*-auto$")
FONT_FACE = re.compile(r"@font-face\s*{[^}]*}")
SOURCE = re.compile(r"src:[^;}]*?url\(['\"]?([^'\")]+\.ttf)['\"]?\)[^;}]*")
ICONS = re.compile("[\ue000-\uf8ff]")
FORMULA = re.compile(r"<math.*?</math>", re.S)
ITALIC = (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C))
PLANCK, ROOT = 0x210E, 0x221A  # the italic h has a place of its own


def names(selector):
    """The tags, classes and ids that a selector needs; what stands in `:not()` and `[]` is none."""
    before = None
    for token in selector:
        pseudo = before is not None and before.type == "literal"
        if token.type == "hash":
            yield token.value
        elif token.type == "ident" and not (pseudo and before.value == ":"):
            yield token.value
        before = token


def used(name, words):
    return name in words or MADE.match(name) or not WORD.fullmatch(name)


def selectors(tokens):
    """The parts of a rule's head between its commas."""
    part = []
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def purge(rules, words):
    """The text of the rules that can match something, given every word of the pages and scripts."""
    for rule in rules:
        if rule.type == "qualified-rule":
            kept = [
                tinycss2.serialize(part).strip()
                for part in selectors(rule.prelude)
                if all(used(name, words) for name in names(part))
            ]
            if kept:
                body = tinycss2.serialize(rule.content).strip()
                yield f"{','.join(kept)}{{{body}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in (
            "media",
            "supports",
        ):
            inner = tinycss2.parse_rule_list(
                rule.content, skip_comments=True, skip_whitespace=True
            )
            if text := "".join(purge(inner, words)):
                head = tinycss2.serialize(rule.prelude).strip()
                yield f"@{rule.at_keyword} {head}{{{text}}}"
        elif rule.type == "at-rule":
            yield rule.serialize()


def lean(css, words, folder):
    """The style sheet without the rules for what is on no page, the icons in use within it."""
    rules = tinycss2.parse_stylesheet(
        css, skip_comments=True, skip_whitespace=True
    )
    text = "\n".join(purge(rules, words))
    icons = set(map(ord, ICONS.findall(text)))

    def inline(match):
        data = subset(folder / match[1], icons)
        coded = base64.b64encode(data).decode()
        return f'src:url(data:font/woff;base64,{coded}) format("woff")'

    return FONT_FACE.sub(lambda face: SOURCE.sub(inline, face[0]), text)


def subset(path, characters):
    """The font as WOFF, with those characters and what its tables make of them."""
    options = Options(flavor="woff", hinting=False)
    font = load_font(path, options)
    if "MATH" in font:
        narrow_roots(font)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    stream = io.BytesIO()
    save_font(font, stream, options)
    return stream.getvalue()


def narrow_roots(font):
    """Gives the signs of tall roots the width of the smallest: Chromium leaves room for the widest
    beside each."""
    variants = font["MATH"].table.MathVariants
    sign = font.getBestCmap()[ROOT]
    place = variants.VertGlyphCoverage.glyphs.index(sign)
    made = variants.VertGlyphConstruction[place]
    taller = {r.VariantGlyph for r in made.MathGlyphVariantRecord}
    taller |= {part.glyph for part in made.GlyphAssembly.PartRecords}
    width = font["hmtx"][sign][0]
    for name in taller:
        advance, left = font["hmtx"][name]
        shape = font["glyf"][name]
        shape.coordinates.scale((width / advance, 1))
        shape.coordinates.toInt()
        shape.recalcBounds(font["glyf"])
        font["hmtx"][name] = (width, round(left * width / advance))


def mathematics(pages):
    """The font of the formulas, with the characters that they use, upright and in italics."""
    text = "".join(
        found for page in pages for found in FORMULA.findall(page)
    )
    plain = set(re.sub("<[^>]*>", "", text))
    italics = {n for n in ITALIC if normalize("NFKC", chr(n)) in plain}
    font = files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    return subset(font, set(map(ord, plain)) | italics | {PLANCK, ROOT})
