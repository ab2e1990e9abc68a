"""Directives for what the library draws: ```{moving} pconv```, ```{drawing} replknet_31b```,
```{idea} rapidnet``` and, with the verdicts of a paper's claims, ```{headlines} mobileone```.

The scripts of figures, in notebooks' outputs too, become files of the site: one for all pages, which
a content security policy can allow without a word inside the page. And a plot does not shrink with the
column until nobody can read it.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive, directives

from paperrepro import draw, figures
from paperrepro.claims.reproduce import network
from paperrepro.claims.scorecard import TITLES, headline_table
from paperrepro.figures import FIGURES
from paperrepro.figures.ideas import thumbnail

SCRIPT = re.compile(
    r'<script data-figure-script="(\w+)">((?:(?!</script>).)*)</script>',
    re.S,
)


PLOT = re.compile(
    r'(<img alt="[^"]*" width="(\d+)" style="max-width: 100%; height: auto)"'
)
# `plots.show` gives an inch 100 pixels, so that type of 10 points is 14 pixels high. At 0.86 of its
# width it has 12 pixels, which are 9 points; a plot up to a phone's width scrolls nowhere.
SMALLEST, PHONE = 0.86, 460


class Moving(Directive):
    """A figure that moves, by its name."""

    required_arguments = 1

    def run(self):
        try:
            return [
                nodes.raw(
                    "", figures.html(self.arguments[0]), format="html"
                )
            ]
        except ValueError as error:
            raise self.error(str(error)) from error


class Drawing(Directive):
    """A network or, with `:block:`, a part of it; with `:fused:` beside its other form."""

    required_arguments = 1
    option_spec = {"block": directives.unchanged, "fused": directives.flag}

    def run(self):
        name, block = self.arguments[0], self.options.get("block")
        try:
            picture = draw(
                network(name),
                block=block,
                fused="fused" in self.options,
                title=f"{name}, {block}" if block else name,
            )
        except ValueError as error:
            raise self.error(str(error)) from error
        return [nodes.raw("", picture.html(), format="html")]


class Idea(Directive):
    """A paper's idea as a thumbnail."""

    required_arguments = 1

    def run(self):
        try:
            return [
                nodes.raw("", thumbnail(self.arguments[0]), format="html")
            ]
        except ValueError as error:
            raise self.error(str(error)) from error


class Headlines(Directive):
    """The claims that a paper rests on, with what became of them."""

    required_arguments = 1

    def run(self):
        paper = self.arguments[0]
        if paper not in TITLES:
            raise self.error(
                f"no paper {paper}; there are {', '.join(TITLES)}"
            )
        return [nodes.raw("", headline_table(paper), format="html")]


def keep_plots_readable(app, pagename, templatename, context, doctree):
    """A plot too wide for a phone keeps its size there and scrolls in its frame (book.css)."""

    def sized(match):
        width = int(match[2])
        least = f"; min-width: {SMALLEST * width:.0f}px"
        return match[1] + least * (width > PHONE) + '"'

    context["body"] = PLOT.sub(sized, context.get("body", ""))


def scripts_as_files(app, pagename, templatename, context, doctree):
    def reference(match):
        name, text = match.groups()
        if name not in FIGURES or text != figures.script(name):
            return match[0]  # as an older release made it
        return f'<script src="{context["pathto"](f"_static/figures/{name}.js", 1)}"></script>'

    context["body"] = SCRIPT.sub(reference, context.get("body", ""))


def write_scripts(app, error):
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_static" / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        for name in FIGURES:
            (folder / f"{name}.js").write_text(
                figures.script(name), encoding="utf-8"
            )


def setup(app):
    app.add_directive("moving", Moving)
    app.add_directive("drawing", Drawing)
    app.add_directive("headlines", Headlines)
    app.add_directive("idea", Idea)
    app.connect("html-page-context", scripts_as_files)
    app.connect("html-page-context", keep_plots_readable)
    before_they_are_joined = 400
    app.connect(
        "build-finished", write_scripts, priority=before_they_are_joined
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
