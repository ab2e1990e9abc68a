"""The whole book as one PDF, printed from the rendered pages by a browser: `make pdf`."""

import posixpath
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "_build" / "html"
PDF = ROOT / "build" / "paperrepro.pdf"
# What is only of use on a screen.
SCREEN = (
    ".headerlink, .pr-controls, script, noscript, button, details:not([open]), "
    'a[href*="_modules/"]'
)
STYLE = """<style>
body { margin: 0; } article.bd-article { padding: 0; max-width: none; font-size: 15px; }
section.page, nav.contents { break-before: page; }
nav.contents li { list-style: none; } nav.contents a { color: inherit; }
div.cover { padding-top: 40%; text-align: center; }
</style>"""
FOOT = (
    '<div style="width: 100%; font-size: 8px; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def contents():
    """The parts of the book: a caption, and the pages below it."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    yield "", [toc["root"]]
    for part in toc["parts"]:
        chapters = [
            (chapter, *chapter.get("sections", ()))
            for chapter in part["chapters"]
        ]
        yield (
            part["caption"],
            [page["file"] for row in chapters for page in row],
        )


def place(page, anchor=""):
    """The name in the one document of a place on a page."""
    return f"{page}:{anchor}" if anchor else page


def article(page, pages):
    """A page's text, its links to other pages turned into links within the document."""
    text = (SITE / f"{page}.html").read_text(encoding="utf-8")
    body = BeautifulSoup(text, "html.parser").select_one(
        "article.bd-article"
    )
    for node in body.select(SCREEN):
        node.decompose()
    for node in body.find_all(id=True):
        if node.name != "svg" and not node.find_parent("svg"):
            node["id"] = place(page, node["id"])
    folder = posixpath.dirname(page)
    for node in body.find_all(["a", "img"]):
        name = "href" if node.name == "a" else "src"
        link = urlsplit(node.get(name, ""))
        if link.scheme or not (link.path or link.fragment):
            continue
        target = posixpath.normpath(posixpath.join(folder, link.path))
        linked = target.removesuffix(".html") if link.path else page
        inside = linked in pages
        node[name] = (
            f"#{place(linked, link.fragment)}" if inside else target
        )
    return f'<section class="page" id="{place(page)}">{body.decode_contents()}</section>'


def document():
    """The book as one page of HTML, in the look of the site."""
    parts = list(contents())
    pages = [page for _, found in parts for page in found]
    head = (SITE / "intro.html").read_text(encoding="utf-8")
    style = "".join(re.findall(r'<link rel="stylesheet"[^>]*>', head))
    title = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())[
        "title"
    ]
    articles = {page: article(page, set(pages)) for page in pages}
    names = {
        page: BeautifulSoup(text, "html.parser").h1.get_text()
        for page, text in articles.items()
    }
    listed = "".join(
        f"<p><b>{caption}</b></p><ul>"
        + "".join(
            f'<li><a href="#{page}">{names[page]}</a></li>'
            for page in found
        )
        + "</ul>"
        for caption, found in parts
    )
    return (
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{title}</title>{style}{STYLE}</head><body>"
        f'<article class="bd-article"><div class="cover"><p>{title}</p></div>'
        f'<nav class="contents"><h2>Contents</h2>{listed}</nav>'
        f"{''.join(articles.values())}</article></body></html>"
    )


def main():
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit(
            "No PDF: it is printed by chromium or google-chrome, and neither is on the path."
        )
    from playwright.sync_api import sync_playwright

    whole = SITE / "whole-book.html"
    whole.write_text(document(), encoding="utf-8")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox"]
        )
        page = chromium.new_page(offline=True, color_scheme="light")
        page.set_default_timeout(600_000)
        page.goto(whole.as_uri())
        page.evaluate("document.fonts.ready.then(() => null)")
        margin = dict.fromkeys(("top", "bottom", "left", "right"), "16mm")
        page.pdf(
            path=PDF,
            format="A4",
            margin=margin,
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )
        chromium.close()
    whole.unlink()
    print(f"The book is at {PDF}, {PDF.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
