"""The checker of recurring faults of English, which `make lint` runs over the book."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "prose.py"


@pytest.fixture(scope="module")
def prose():
    spec = importlib.util.spec_from_file_location("prose", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("It ran on a Telephone.", "Telephone"),
        ("Ask how many parameters has it.", "how many parameters has it"),
        ("That is the\nthe end.", "the the"),
        ("A damaged file is told by its sum.", "is told"),
        ("All are equal but for one.", "but for"),
        ("> Nor does\n> it help.", "Nor does"),
    ],
)
def test_a_fault_is_found_and_quoted(prose, text, word):
    (found,) = prose.faults(text)
    assert word in " ".join(found.replace("> ", "").split())


@pytest.mark.parametrize(
    "text",
    [
        'The phone has `the the` in a file, and "on the other hand" is quoted.',
        "```bash\necho the the\n```",
        "$x$ $x$: how many does it have? It cannot be told apart.",
        "## One heading\n\nHeading one is over. But for each pixel there is another.",
        "| a | a |\n|---|---|\n| a | a |",
    ],
)
def test_what_is_right_or_no_prose_passes(prose, text):
    assert not prose.faults(text)


def test_every_kind_of_text_is_read(prose):
    places = [place for place, _ in prose.texts()]
    for part in ("README.md", "book/intro.ipynb", "book/glossary.md", "paperrepro/reparam.py:"):
        assert any(place.startswith(part) for place in places)
