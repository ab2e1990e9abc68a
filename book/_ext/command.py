"""A directive that shows what a command of the library prints: ```{command} train --help```."""

from docutils import nodes
from docutils.parsers.rst import Directive
from typer.testing import CliRunner

from paperrepro.cli import app as commands


class Command(Directive):
    required_arguments, final_argument_whitespace = 1, True

    def run(self):
        asked = self.arguments[0]
        result = CliRunner().invoke(
            commands, asked.split(), prog_name="paperrepro"
        )
        if result.exit_code:
            raise self.error(f"paperrepro {asked}: {result.output}")
        return [
            nodes.literal_block(
                "", result.output.strip(), language="text", force=True
            )
        ]


def setup(app):
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
