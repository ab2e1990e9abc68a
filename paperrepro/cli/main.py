"""The command `paperrepro` and its subcommands.

Tables go to standard output, aligned and without colour, so that they can be piped; `--format`
turns them into CSV, JSON or Markdown. A mistake is one line on standard error: exit code 2 for a
bad argument, 1 for anything that fails later.
"""

import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from .analysis import approximate, attribute, erf, kernels, salient, shape_bias, similarity
from .benchmark import app as benchmark_commands
from .console import Commands
from .data import app as data_commands
from .dense import predict
from .export import export, phone_report, plan, verify, verify_networks
from .models import CLAIMS_EPILOG, OUTCOMES_EPILOG, claims, draw, info, models, outcomes
from .training import evaluate, experiment, recipe, train

app = typer.Typer(
    name="paperrepro",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Five papers on fast vision backbones, reproduced: thirty networks and every claim.

    \b
    paperrepro models                 the networks, with their parameters and multiply-adds
    paperrepro info replknet_31b      one network: stages, layers, configuration, claims
    paperrepro draw mobileone_s0 --block stages.1.blocks.2 --fused --out block.svg
                                      a diagram of a network or of one of its blocks
    paperrepro claims --paper replknet --verdict differs
                                      where our value is not the paper's, and by how much
    paperrepro benchmark depthwise    speed, measured; see paperrepro benchmark --help
    paperrepro train mobileone_s0 --data digits --recipe small --out runs/digits
                                      train a network; evaluate, recipe and experiment go with it
    paperrepro erf rapidnet_ti --images photo.jpg --out erf.png
                                      look inside; also salient, similarity, shape-bias, attribute
    paperrepro export mobileone_s0 --weights released
                                      to an iPhone; verify and plan look into the file
    """,
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paperrepro {__version__}")
        raise typer.Exit()


def one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return f"paperrepro: {message}\n"


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=show_version, is_eager=True),
    ] = False,
) -> None:
    warnings.formatwarning = one_line


COMMANDS: tuple[Callable[..., None], ...] = (
    *(models, info, draw),
    *(train, evaluate, predict, recipe, experiment),
    *(erf, salient, kernels, similarity, approximate, shape_bias, attribute),
    *(export, verify, plan, phone_report, verify_networks),
)
for command in COMMANDS:
    app.command()(command)
app.command(epilog=CLAIMS_EPILOG)(claims)
app.command(epilog=OUTCOMES_EPILOG)(outcomes)
app.add_typer(benchmark_commands, name="benchmark")
app.add_typer(data_commands, name="data")
