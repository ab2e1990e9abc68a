"""The pages of the library's functions: complete, from docstrings, and linked with the chapters."""

import re
import sys
from inspect import ismodule
from pathlib import Path
from pydoc import locate

import pytest
import typer

sphinx = pytest.importorskip("sphinx")
from sphinx.util.inventory import InventoryFile  # noqa: E402

from paperrepro.cli import app  # noqa: E402

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("*.ipynb"))
PAGES = sorted(path.stem for path in (BOOK / "api").glob("*.md"))


@pytest.fixture(scope="module")
def library():
    sys.path.insert(0, str(BOOK / "_ext"))
    import library

    yield library
    sys.path.remove(str(BOOK / "_ext"))


@pytest.fixture(scope="module")
def documented(site):
    """By the name of each documented object: its kind, and where it stands."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, place: place)
    return {
        name: (kind.removeprefix("py:"), entry[2].replace("$", name))
        for kind, entries in inventory.items()
        if kind.startswith("py:")
        for name, entry in entries.items()
    }


@pytest.mark.parametrize(
    ("name", "kind", "page"),
    [
        ("paperrepro.create_model", "function", "weights"),
        ("paperrepro.reparameterize", "function", "reparameterize"),
        ("paperrepro.models.Backbone", "class", "models"),
        ("paperrepro.models.Backbone.features", "method", "models"),
        ("paperrepro.training.train", "function", "training"),
        ("paperrepro.training.Recipe", "class", "training"),
        ("paperrepro.analysis.erf.measure", "function", "analysis"),
        ("paperrepro.export.export_coreml", "function", "export"),
        ("paperrepro.claims.load_claims", "function", "claims"),
        ("paperrepro.benchmark.latency.compare", "function", "benchmark"),
    ],
)
def test_inventory_tells_other_books_where_a_name_stands(documented, name, kind, page):
    assert documented[name] == (kind, f"api/{page}.html#{name}")


def test_every_top_level_name_is_documented(documented):
    import paperrepro

    assert {f"paperrepro.{name}" for name in paperrepro.__all__} <= documented.keys()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_chapter_uses_is_documented_and_linked(site, documented, library, chapter):
    places = {id(locate(name)): place for name, (_, place) in documented.items()}
    page = (site / f"{chapter}.html").read_text(encoding="utf-8")
    used = library.names_used(BOOK / f"{chapter}.ipynb")
    assert used
    for name in used:
        value = locate(name)
        if ismodule(value) or value is None:  # or a variable that is called as a module is
            continue
        place = documented[name][1] if name in documented else places.get(id(value))
        assert place, f"{chapter} uses {name}, which is on no page of book/api"
        assert f'href="{place}"' in page, f"{chapter} does not link {name}"
        target = (site / place.split("#")[0]).read_text(encoding="utf-8")
        described = re.split(rf'id="{re.escape(place.split("#")[1])}"', target)[1]
        assert f'href="../{chapter}.html"' in described.split('<dl class="py ')[0], (
            f"{name} does not say that {chapter} uses it"
        )


@pytest.mark.parametrize("page", PAGES)
def test_page_has_words_for_every_object_and_names_a_chapter(site, page):
    text = (site / "api" / f"{page}.html").read_text(encoding="utf-8")
    article = text[text.index("<article") :]
    assert not re.findall(r'<dt[^>]*id="([^"]+)"(?:(?!<dt).)*?<dd>\s*</dd>', article, re.S)
    if page != "index":
        intro = re.split("<h2|<dl", article)[0]
        assert re.search(r'href="\.\./[\w-]+\.html"', intro), "name a chapter"


def test_what_a_page_lists_is_shown(documented):
    """automodule leaves out, without a word, a member that has no docstring."""
    for page in PAGES:
        text = (BOOK / "api" / f"{page}.md").read_text()
        listed = re.findall(r":: (paperrepro[\w.]*)\n(?:   :members: (.*))?", text)
        for module, members in listed:
            for member in filter(None, members.split(", ")):
                assert f"{module}.{member}" in documented, f"{module}.{member} needs a docstring"


def commands(group, *path):
    for name, command in getattr(group, "commands", {}).items():
        yield " ".join([*path, name])
        yield from commands(command, *path, name)


def test_every_command_shows_its_help(site):
    source = (BOOK / "api" / "cli.md").read_text()
    page = (site / "api" / "cli.html").read_text(encoding="utf-8")
    for command in commands(typer.main.get_command(app)):
        assert f"```{{command}} {command} --help\n" in source
        assert f"Usage: paperrepro {command} " in re.sub(r"<[^>]+>", "", page)


def test_types_link_to_pytorch_without_a_network(site):
    page = (site / "api" / "models.html").read_text(encoding="utf-8")
    assert "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor" in page
    assert "https://docs.python.org/3/library/collections.abc.html" in page
