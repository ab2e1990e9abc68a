"""README's command lines: each is one that the command line takes, and stands under its extras.

They are run, from a wheel in an environment of its own, by tests/readme_lines.py in CI.
"""

import re
import shlex
import tomllib

import pytest
import typer
from readme_lines import QUICK, README, parts, quick

from paperrepro.cli import app
from paperrepro.training.recipe import find_recipe, override

PARTS = parts(README.read_text(encoding="utf-8"))
LINES = [line for _, lines in PARTS for line in lines]
COMMANDS = [re.sub(r"^torchrun .* -m paperrepro(\.cli)? ", "paperrepro ", line) for line in LINES]
# The commands that the book's pages give, too.
PAGES = (README.parent / "book").glob("*.md")
BLOCKS = [
    line.replace("\\\n", " ")
    for page in sorted(PAGES)
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    for line in re.findall(r"^paperrepro (?:.*\\\n)*.*", block, re.M)
]
PROJECT = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parse(line):
    """The context that the command line makes of a line, without running anything."""
    command, (program, *arguments) = typer.main.get_command(app), shlex.split(line)
    assert program == "paperrepro", f"README runs {program!r}, which this test cannot read"
    while hasattr(command, "commands") and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    assert not hasattr(command, "commands"), f"no such command: {line}"
    return command.make_context(command.name, arguments)


def test_readme_has_parts_with_lines():
    assert PARTS[0][0] == "", "the first installation is the plain one"
    assert all(lines for _, lines in PARTS)
    assert len(LINES) >= 10


@pytest.mark.parametrize("line", BLOCKS)
def test_pages_lines_parse(line):
    context = parse(line)
    if context.info_name == "train":
        given = context.params
        override(find_recipe(given["name"], given["recipe"]), given["settings"] or ())


@pytest.mark.parametrize("line", COMMANDS)
def test_readmes_lines_parse(line):
    parse(line)
    parse(quick(line))


def test_a_stale_line_is_found():
    for line in ("paperrepro modles", "paperrepro models --stale", "paperrepro info"):
        with pytest.raises(Exception, match="(?i)no such|missing"):
            parse(line)


def test_every_shortening_is_used():
    for slow in QUICK:
        assert any(slow in line for line in LINES), f"no line of README's says {slow!r}"


def test_the_table_of_extras_is_complete():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", README.read_text(encoding="utf-8"), re.M)
    named = {name for row in rows for name in re.findall(r"\w+", row)}
    extras = set(PROJECT["optional-dependencies"])
    assert extras <= named
    assert {extra for extras, _ in PARTS for extra in extras.split(",") if extra} <= extras
