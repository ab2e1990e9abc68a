"""Pages that load fast: what no page uses is not loaded, and the rest in few files.

The themes ask for some thirty files and four megabytes. After the build each page is relieved of the
scripts that it does not need, and its style sheets, without what no page uses, and scripts are
joined. Each forbids its browser to load anything from elsewhere, or to send anything there.
"""

import hashlib
import os
import re
from functools import cache

from lean import WORD, lean, mathematics

# Icons come from the web fonts, no page runs code, and search has a page of its own.
UNUSED = ("fontawesome.js", "sphinx-thebe.css")
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
SCRIPT = re.compile(
    r'[ \t]*<script(?P<attributes>(?: [\w-]+(?:="[^"]*")?)*?) src="(?P<file>[^"?]+)[^>]*></script>\n?'
)
STYLE = re.compile(
    r'[ \t]*<link(?=[^>]*rel="stylesheet")[^>]* href="(?P<file>[^"?]+)[^>]*>\n?'
)
PRELOAD = re.compile(r'[ \t]*<link rel="preload" as="script"[^>]*>\n?')
ADDRESS = re.compile(r"url\((['\"]?)(?!data:|https?:|#)([^'\")]+)\1\)")
# The theme and the figures that move write scripts and styles into the page; nothing is evaluated.
# From disk a browser may take "self" for no place at all.
HERE = "'self' file:"
POLICY = (
    f"default-src {HERE}; script-src {HERE} 'unsafe-inline'; style-src {HERE} 'unsafe-inline'; "
    f"img-src {HERE} data:; font-src {HERE} data:; worker-src {HERE} blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self' file:"
)
# The sidebar's folding parts have no name for those who hear the page.
FOLD = '<summary><span class="toctree-toggle"'
NAMED_FOLD = FOLD.replace(
    "<summary>", '<summary aria-label="The pages below">'
)
META = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'


def lighten(app, error):
    if error is None and app.builder.format == "html":
        pages = {
            path: path.read_text(encoding="utf-8")
            for path in sorted(app.outdir.rglob("*.html"))
        }
        font = app.outdir / "_static" / "formulas.woff"
        font.write_bytes(mathematics(pages.values()))
        scripts = (
            path.read_text(encoding="utf-8")
            for path in app.outdir.rglob("*.js")
            if path.name not in UNUSED
        )
        texts = [*pages.values(), *scripts]
        words = {word for text in texts for word in WORD.findall(text)}
        folder = app.outdir / "_static" / "styles"

        @cache
        def leaner(css):
            return lean(css, words, folder)

        for path, page in pages.items():
            page = light(page, path, app.outdir, leaner)
            path.write_text(page, encoding="utf-8")


def light(page, path, root, leaner):
    """A page with its scripts and style sheets joined; one that was joined before stays."""
    if META not in page:
        page = page.replace("<head>", f"<head>\n    {META}", 1)
    page = PRELOAD.sub("", page).replace(FOLD, NAMED_FOLD)
    sheet = '<link rel="stylesheet" href="{}" />\n'
    page = join(page, STYLE, path, root, sheet, finish=leaner)
    page = join(page, SCRIPT, path, root, '<script src="{}"></script>\n')
    late = '<script defer src="{}"></script>\n'
    return join(page, SCRIPT, path, root, late, late=True)


def join(page, pattern, path, root, tag, late=False, finish=str):
    """The page with the files of that kind as one, where the last of them stood: what a script
    takes from a line of the page stands before it. A figure's script stays beside its figure."""
    files = []

    def take(match):
        name = match["file"].rpartition("/")[2]
        file = path.parent / match["file"]
        if name in UNUSED or name in SEARCH and path.name != "search.html":
            return ""
        deferred = " defer" in match.groupdict().get("attributes", "")
        stays = name.startswith("site-") or "/figures/" in match["file"]
        if deferred != late or stays or not file.is_file():
            return match[0]
        files.append(file.resolve())
        return "\0"

    page = pattern.sub(take, page)
    if not files:
        return page
    address = os.path.relpath(joined(files, root, finish), path.parent)
    before, _, after = page.rpartition("\0")
    return before.replace("\0", "") + tag.format(address) + after


def joined(files, root, finish):
    """The file that holds those files, in a folder of the site."""
    folder = root / "_static" / "styles"
    parts = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".css":
            text = ADDRESS.sub(
                lambda match, file=file: (
                    f"url({os.path.relpath(file.parent / match[2], folder)})"
                ),
                text,
            )
        parts.append(text.removeprefix('@charset "UTF-8";'))
    content = (";\n" if files[0].suffix == ".js" else "\n").join(parts)
    content = finish(content)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    path = folder / f"site-{digest}{files[0].suffix}"
    if not path.exists():
        path.write_text(content, encoding="utf-8")
    return path


def setup(app):
    # The theme writes the colours of code in the same event, before us.
    app.connect("build-finished", lighten, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
