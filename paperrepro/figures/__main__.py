"""Draws the still pictures again: `python -m paperrepro.figures`, with chromium and playwright.

In a checkout it also writes the one that the README shows.
"""

import shutil

from ..files import write_atomically
from . import FIGURES, FOLDER, blank, compose, standalone

# What the script drew first, without what only a live figure needs.
STILL = """() => {
    const svg = document.querySelector(".pr-moving svg");
    svg.removeAttribute("tabindex");
    svg.setAttribute("role", "img");
    for (const part of svg.querySelectorAll("[tabindex]"))
        for (const name of ["tabindex", "role", "aria-label"]) part.removeAttribute(name);
    for (const part of svg.querySelectorAll("[style]")) part.style.removeProperty("transition");
    return new XMLSerializer().serializeToString(svg);
}"""


def draw_stills() -> dict[str, str]:
    """The first state of every figure as SVG, as a browser draws it."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("no chromium or google-chrome on the path; install one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(offline=True, reduced_motion="reduce")
        stills = {}
        for name in FIGURES:
            page.set_content(f"<!doctype html><body>{compose(name, blank(name))}")
            stills[name] = page.evaluate(STILL)
        browser.close()
    return stills


if __name__ == "__main__":
    for name, picture in draw_stills().items():
        write_atomically(FOLDER / "stills" / f"{name}.svg", picture + "\n")
        print(FOLDER / "stills" / f"{name}.svg")
    pages = FOLDER.parents[1] / "book" / "_static"
    if pages.is_dir():
        write_atomically(pages / "speed.svg", standalone("speed"))
