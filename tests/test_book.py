"""The book: its notebooks as committed, and the pages built from them."""

import csv
import importlib.util
import re
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml

from paperrepro import __version__, figures

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
CARD = re.compile(
    r"```\{admonition\} What this chapter costs\n"
    r":class: tip cost-card\n"
    r"(?P<seconds>\d+) s on two CPU cores · (?P<peak_memory_gb>\d+\.\d) GB of memory · "
    r"(?P<download>.+)\n```"
)
BOOTSTRAP = f"""\
try:
    import paperrepro
except ImportError:
    %pip install -q \\
    "paperrepro[book] @ git+{ADDRESS}@v{__version__}"
    import paperrepro"""

toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
PAGES = [toc["root"]] + [
    page["file"]
    for part in toc["parts"]
    for chapter in part["chapters"]
    for page in (chapter, *chapter.get("sections", ()))
]
NOTEBOOKS = [page for page in PAGES if (BOOK / f"{page}.ipynb").exists()]
SOLUTIONS = [page for page in NOTEBOOKS if page.startswith("solutions/")]
CHAPTERS = [page for page in NOTEBOOKS if page not in (toc["root"], *SOLUTIONS)]


@cache
def read(name):
    return nbformat.read(BOOK / f"{name}.ipynb", as_version=4)


def code_cells(name):
    return [c for c in read(name).cells if c.cell_type == "code" and c.source.strip()]


def outputs(name):
    return [output for cell in code_cells(name) for output in cell.outputs]


def test_contents_list_every_page_and_no_other():
    found = {
        path.relative_to(BOOK).with_suffix("").as_posix()
        for pattern in ("*.ipynb", "*.md", "solutions/*", "api/*")
        for path in BOOK.glob(pattern)
        if path.suffix in (".ipynb", ".md")
    }
    assert found == set(PAGES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_tidy(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_ran_in_order_without_error(name):
    counts = [cell.execution_count for cell in code_cells(name)]
    assert counts == list(range(1, len(counts) + 1)), "run 'make notebooks'"
    errors = [o.ename for o in outputs(name) if o.output_type == "error"]
    assert not errors
    stderr = [o.text for o in outputs(name) if o.get("name") == "stderr"]
    assert not stderr, "a warning or progress bar was saved"
    assert outputs(name), "no cell shows a result"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_that_print_or_show_have_outputs(name):
    silent = [
        cell.source
        for cell in code_cells(name)
        if re.search(r"^(print|display|plots\.show)\(", cell.source, re.MULTILINE)
        and not cell.outputs
    ]
    assert not silent


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_has_alt_text(name):
    for output in outputs(name):
        data = output.get("data", {})
        bare = [kind for kind in data if kind.startswith("image/")]
        assert not bare, "show figures with paperrepro.plots.show(fig, alt=...)"
        for tag in re.findall(r"<img[^>]*>", "".join(data.get("text/html", ""))):
            assert re.search(r'alt="[^"]{15,}"', tag), "the alt text should say what is to be seen"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_checked_tables_are_text(name):
    for cell in code_cells(name):
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, "a cell whose output is checked must have one"
            assert "<img" not in str(cell.outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_code_installs_the_library_where_it_is_missing(name):
    assert (code_cells(name)[0].source + "\n").startswith(BOOTSTRAP + "\n")


@pytest.mark.parametrize("name", CHAPTERS)
def test_cost_card_states_what_was_measured(name):
    first = read(name).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    card = CARD.search(first.source)
    assert card, "the first cell needs a cost card; CONTRIBUTING.md gives its form"
    with (ROOT / "data/results/chapter_costs.csv").open(newline="") as file:
        costs = {row["notebook"]: row for row in csv.DictReader(file)}
    assert name in costs, "run 'make notebooks'"
    for quantity in ("seconds", "peak_memory_gb"):
        assert card[quantity] == costs[name][quantity]


TERM = re.compile(r"\{term\}`[^`]*`")
NOT_PROSE = re.compile(
    r"^(?:```|~~~).*?^(?:```|~~~)|^#.*?$|^:.*?:.*?$"  # fences, headings, options
    r"|\$\$.*?\$\$|\$[^$\n]*\$"
    r"|\{(?!term)[a-z:]+\}`[^`]*`|(?<!\})`[^`]*`|\[[^]]*\]\([^)]*\)|<[^>`]*>(?!`)|\([\w-]+\)=",
    re.M | re.S,
)
EVERYDAY = {"jump", "k"}  # also words of everyday English, or letters


def glossary_terms():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\w[^\n]*)\n  \S", text.split("{glossary}")[1], re.M)
    assert len(terms) > 50
    return [term for term in terms if "," not in term and term not in EVERYDAY]


def pattern_of(term):
    flags = re.I if term.islower() else 0
    return re.compile(
        rf"(?<![\w-]){re.escape(term)}(?:s|es)?(?![\w-])".replace(r"\ ", r"\s+"), flags
    )


def blanked(text):
    """The text with spaces where it is no prose, so that places stay the same."""
    return NOT_PROSE.sub(lambda found: " " * len(found[0]), text)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_term_of_the_glossary_is_linked_at_its_first_use(name):
    prose = [blanked(cell.source) for cell in read(name).cells if cell.cell_type == "markdown"]
    text = "\n".join(prose)
    linked = [(found.start(), found.end()) for found in TERM.finditer(text)]
    for term in glossary_terms():
        first = pattern_of(term).search(text)
        if first:
            line = text[max(0, first.start() - 30) : first.end() + 30]
            assert any(a <= first.start() < b for a, b in linked), f"{term}: ...{line}..."


def execute_module():
    spec = importlib.util.spec_from_file_location("execute", BOOK / "execute.py")
    execute = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(execute)
    return execute


@pytest.mark.parametrize(
    ("outputs", "marked"),
    [
        (["top1 0.53"] * 2, True),
        (["top1 0.53", "top1 0.54"], False),
        (["trained in 3 s"] * 2, False),
        (["off by 8e-07"] * 2, False),
        (['<img src="data:,">'] * 2, False),
        ([""] * 2, False),
    ],
)
def test_cells_that_print_the_same_each_time_are_marked(outputs, marked):
    new = nbformat.v4
    made = [
        new.new_notebook(
            cells=[
                new.new_code_cell(
                    outputs=[new.new_output("stream", text=text)],
                    metadata={"tags": ["kept", "nbval-check-output"]},
                )
            ]
        )
        for text in outputs
    ]
    execute_module().mark_stable(*made)
    tags = made[0].cells[0].metadata["tags"]
    assert tags == ["kept", "nbval-check-output"][: 1 + marked]


CARD_ROW = {"peak_memory_gb": "1.0", "cpu_seconds": "40", "reference_seconds": "0.2"}


@pytest.mark.parametrize(
    ("memory", "cpu", "reference", "found"),
    [
        (1.5, 60, 0.2, None),
        (1.0, 120, 0.4, None),  # on a machine half as fast
        (1.0, 70, 0.2, "70 CPU seconds, and 65 are allowed"),
        (1.0, 40, 0.1, "40 CPU seconds, and 35 are allowed"),  # and twice as fast
        (1.7, 40, 0.2, "1.7 GB of memory, and 1.6 GB are allowed"),
    ],
)
def test_a_notebook_that_costs_half_as_much_again_is_found(memory, cpu, reference, found):
    execute = execute_module()
    assert (execute.excess(memory, cpu, reference, CARD_ROW) or "").startswith(found or "")
    assert bool(found) == bool(execute.excess(memory, cpu, reference, CARD_ROW))


def checks(name):
    """The cells that check the exercises, by id."""
    tagged = [c for c in code_cells(name) if "exercise-check" in c.metadata.get("tags", [])]
    return {cell.id: cell for cell in tagged}


@pytest.mark.parametrize("name", CHAPTERS)
def test_exercises_have_solutions_that_pass_the_same_checks(name):
    asked, solved = checks(name), checks(f"solutions/{name}")
    assert asked and asked.keys() == solved.keys()
    for key, cell in asked.items():
        assert solved[key].source == cell.source
        assert "waiting" in cell.outputs[0].text and "correct" in solved[key].outputs[0].text


def test_readmes_picture_is_the_home_pages_figure():
    picture = (BOOK / "_static" / "speed.svg").read_text(encoding="utf-8")
    assert picture == figures.standalone("speed"), "run 'python -m paperrepro.figures'"
    assert "_static/speed.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Of a built page: ids, links, images, metadata, and what the browser would load by itself."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images, self.loads, self.meta = set(), [], [], [], {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "meta" and "name" in attrs:
            self.meta[attrs["name"]] = attrs.get("content")
        if tag == "img":
            self.images.append(attrs)
        if tag in ("img", "script", "iframe", "source") and attrs.get("src"):
            self.loads.append(attrs["src"])
        if tag == "link" and attrs.get("rel") != "canonical" and attrs.get("href"):
            self.loads.append(attrs["href"])


@pytest.fixture(scope="session")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


@pytest.mark.parametrize("name", PAGES)
def test_page_was_built(site, pages, name):
    assert site / f"{name}.html" in pages


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_holds_every_figure(site, pages, name):
    shown = "".join(str(o.get("data", {}).get("text/html", "")) for o in outputs(name))
    built = (site / f"{name}.html").read_text(encoding="utf-8")
    missing = [tag for tag in re.findall(r'<img alt="[^"]*"', shown) if tag not in built]
    assert not missing
    assert all(image.get("alt") for image in pages[site / f"{name}.html"].images)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_opens_its_own_notebook_in_colab(site, pages, name):
    repository = ADDRESS.removeprefix("https://github.com/")
    wanted = f"colab.research.google.com/github/{repository}/blob/main/book/{name}.ipynb"
    assert f"https://{wanted}" in pages[site / f"{name}.html"].links


def test_no_internal_link_is_broken(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].ids:
                    broken.append(f"{path.name}: {link}")
    assert not broken, "\n".join(broken)


def test_pages_load_nothing_from_elsewhere(pages):
    foreign = {
        f"{path.name}: {source}"
        for path, page in pages.items()
        for source in page.loads
        if urlsplit(source).scheme in ("http", "https") or source.startswith("//")
    }
    assert not foreign, "\n".join(sorted(foreign))


@pytest.mark.parametrize("name", PAGES)
def test_page_describes_itself(pages, site, name):
    description = pages[site / f"{name}.html"].meta.get("description", "")
    assert 50 < len(description) < 250


def test_descriptions_differ(pages, site):
    found = [pages[site / f"{name}.html"].meta.get("description") for name in PAGES]
    assert len(set(found)) == len(PAGES)


def test_the_pdf_links_within_itself(site, monkeypatch):
    spec = importlib.util.spec_from_file_location("pdf", BOOK / "pdf.py")
    pdf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pdf)
    monkeypatch.setattr(pdf, "SITE", site)
    assert [page for _, found in pdf.contents() for page in found] == PAGES
    text = pdf.article("solutions/fasternet", set(PAGES))
    assert 'href="#fasternet"' in text and 'id="solutions/fasternet:' in text
    assert "<script" not in text and ".html" not in text.replace("https://", "")


def test_sitemap_lists_every_page(site):
    text = (site / "sitemap.xml").read_text(encoding="utf-8")
    base = re.search(r"baseurl: (.+)", (BOOK / "_config.yml").read_text())[1]
    assert set(re.findall(r"<loc>(.*?)</loc>", text)) == {f"{base}{name}.html" for name in PAGES}


def test_missing_pages_are_answered_by_our_own(site, pages):
    assert "No such page" in (site / "404.html").read_text(encoding="utf-8")
    # It is served at any depth, so nothing in it may be relative.
    page = pages[site / "404.html"]
    assert not page.loads and all(link.startswith("https://") for link in page.links)
