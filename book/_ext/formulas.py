"""Formulas as MathML, set when the book is built: no script runs, and a screen reader hears them.

docutils translates them; what it cannot translate is a warning, which fails a strict build. Their font
comes with the book (book/_ext/light.py): not every system has one for mathematics.
"""

import re
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# What docutils' translator of LaTeX lacks: names, and a fraction's arguments without braces.
SPELLINGS = [
    (r"\{,\}", r"\\text{,}"),
    (r"\\textstyle\\sum", r"{\\textstyle\\sum}"),
    (r"\\dots(?![a-zA-Z])", r"\\ldots "),
    (r"\\([bB]ig)(?=\)|\]|\\}|\\r)", r"\\\1r"),
    (r"\\([bB]ig)(?![a-zA-Z])", r"\\\1l"),
    (r"\\([dt]?frac)(\d)(\d)", r"\\\1{\2}{\3}"),
]
TAG = re.compile(r"\\tag\{([^{}]*)\}")
APPLY, THIN = "\u2061", "0.17em"
# TeX takes one digit where it means several, without a word.
DOUBTFUL = re.compile(r"[_^]\d\d")


def mathml(latex, block=False):
    """The formula as a `<math>` element; ValueError where it cannot be one."""
    for pattern, spelling in SPELLINGS:
        latex = re.sub(pattern, spelling, latex)
    if found := DOUBTFUL.search(latex):
        raise ValueError(f"{found[0]} needs braces")
    braces = re.sub(r"\\.", "", latex)
    if braces.count("{") != braces.count("}"):
        raise ValueError("its braces do not match")
    try:
        text = tex2mathml(latex, as_block=block)
    except MathError as error:
        raise ValueError(str(error)) from error
    plain = re.sub(' xmlns="[^"]*"', "", text, count=1)
    root = ElementTree.fromstring(plain.replace("&ApplyFunction;", APPLY))
    for parent in root.iter():
        space(parent)
        repair(parent)
        parent.text, parent.tail = (parent.text or "").strip("\n "), None
    return ElementTree.tostring(root, encoding="unicode")


def space(parent):
    """The gaps of TeX: none beside a slash or a bar, a thin one between a function and what it stands
    beside without a parenthesis."""
    for place, child in reversed(list(enumerate(parent))):
        after = beside(parent, place + 1)
        word = "".join(child.itertext()).strip()
        if child.text in ("/", "|", "‖"):
            child.attrib |= {
                "lspace": "0",
                "rspace": "0",
                "stretchy": "false",
            }
        elif child.text == APPLY:
            if after not in ("", *"([{|‖,"):
                parent.insert(
                    place + 1, ElementTree.Element("mspace", width=THIN)
                )
            left = beside(parent, place - 2)
            if left.isalnum() or left in (")", "]"):
                parent.insert(
                    place - 1, ElementTree.Element("mspace", width=THIN)
                )
        elif child.tag == "mo" and word.isalpha() and word.isascii():
            opens = after in ("", *"([{|‖,")
            child.attrib |= {
                "lspace": "0",
                "rspace": "0" if opens else THIN,
            }


def beside(parent, place):
    """The text of the child at that place, if any."""
    if 0 <= place < len(parent):
        return "".join(parent[place].itertext()).strip()
    return ""


def repair(node):
    """A brace's text stands below the brace; the index of a letter with a bar beside the letter."""
    if node.tag == "msub" and node[0].tag == "munder":
        node.tag = "munder"
    elif node.tag == "munderover" and node[2].get("stretchy") == "false":
        letter, index, bar = node
        accented = ElementTree.Element("mover", accent="true")
        accented.extend([letter, bar])
        node[:] = [accented, index]
        node.tag = "msub"


def write(translator, node, tag, block):
    latex = TAG.sub("", node.astext())
    try:
        formula = mathml(latex, block)
    except ValueError as error:
        logging.getLogger(__name__).warning(
            "formula %s: %s", latex, error, location=node
        )
        formula = translator.encode(latex)
    numbers = "".join(
        f'<span class="eqno">({number})</span>'
        for number in TAG.findall(node.astext())
    )
    # A wide formula scrolls in its own box, by keyboard too.
    reach = {"tabindex": "0"} if block else {}
    start = translator.starttag(
        node, tag, "", CLASS="math notranslate", **reach
    )
    translator.body.append(f"{start}{numbers}{formula}</{tag}>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        (lambda *place: write(*place, "span", False), None),
        (lambda *place: write(*place, "div", True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
