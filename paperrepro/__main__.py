"""`python -m paperrepro`: the command line."""

from .cli import app

app(prog_name="paperrepro")
