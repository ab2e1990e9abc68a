"""The command line: `paperrepro models`, `info NAME`, `claims`, `benchmark`, `train` and the rest.

Tables go to standard output, aligned and without colour, so that they can be piped; `--format`
turns them into CSV, JSON or Markdown. A mistake is one line on standard error: exit code 2 for a
bad argument, 1 for anything that fails later.
"""

import inspect
import sys
from collections import Counter
from fnmatch import fnmatch
from typing import Annotated

import pandas as pd
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .analysis.commands import approximate, attribute, erf, salient, shape_bias, similarity
from .benchmark.commands import app as benchmark_commands
from .benchmark.complexity import complexity
from .benchmark.reproduce import (
    COMPUTED,
    CONFIGURATION,
    network,
    stage_depths,
    update_claims,
)
from .claims import MODES, PAPERS, QUANTITIES, VERDICTS, load_claims
from .console import Format, FormatOption, aligned, exit_on_error, render
from .export.commands import export, plan, verify, verify_networks
from .models import Backbone, check_name, family_of, list_models
from .training.commands import evaluate, experiment, recipe, train
from .weights import RELEASED

app = typer.Typer(
    name="paperrepro",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Five papers on fast vision backbones, reproduced: thirty networks and every claim.

    \b
    paperrepro models                 the networks, with their parameters and multiply-adds
    paperrepro info replknet_31b      one network: stages, layers, configuration, claims
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
app.add_typer(benchmark_commands, name="benchmark")

CLAIM_COLUMNS = ["paper", "item", "subject", "quantity", "unit", "paper_value", "ours", "verdict"]


@app.command()
def models(
    family: Annotated[
        str | None,
        typer.Option(
            help="Only this family: mobileone, fasternet, replknet, mobilevig, mobilevigv2 or "
            "rapidnet."
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """List the networks with their size and the paper's accuracy.

    Parameters (params) and multiply-adds (macs, one image of 224 x 224) are ours, counted from the
    networks as they are trained and as they run after re-parameterization (fused). The top-1
    accuracy is the paper's, on ImageNet-1K; it was not rerun.

    \b
    Examples:
      paperrepro models
      paperrepro models --family rapidnet
      paperrepro models --format csv > models.csv
    """
    with exit_on_error(2):
        names = list_models(family)
    rows = []
    for name in tqdm(names, desc="Counting", leave=False, disable=None):
        size = complexity(name)
        rows.append(
            {
                "name": name,
                "params": size.params,
                "params_fused": size.params_fused,
                "macs": size.macs,
                "macs_fused": size.macs_fused,
                "paper_top1": RELEASED[name].top1,
            }
        )
    typer.echo(render(pd.DataFrame(rows), format))


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A name that `paperrepro models` lists.")],
    size: Annotated[
        int, typer.Option(help="Side of the square input in pixels.", metavar="PIXELS")
    ] = 224,
) -> None:
    """Describe one network: size, stages, layers, configuration, weights and claims.

    \b
    Examples:
      paperrepro info fasternet_t0
      paperrepro info replknet_31b --size 384
    """
    with exit_on_error(2):
        check_name(name)
        if size < Backbone.stride:
            raise ValueError(
                f"size {size} is too small; the networks need {Backbone.stride} pixels"
            )
    model = network(name)
    counts = complexity(name, size)
    release = RELEASED[name]
    with exit_on_error(1):
        claims = load_claims()
    claims = claims[about(name, claims)]

    typer.echo(f"{name}  {paper_title(model)}")
    facts = [
        ("input", f"3 x {size} x {size}"),
        ("training parameters", f"{counts.params:,}"),
        ("- re-parameterized", f"{counts.params_fused:,}"),
        ("- by the paper's counting rule", f"{counts.params_paper:,}"),
        ("multiply-adds", f"{counts.macs:,}"),
        ("- re-parameterized", f"{counts.macs_fused:,}"),
        ("the paper's top-1", f"{release.top1} % on ImageNet-1K, not rerun"),
        ("released weights", release.url or f"no download, see {release.page}"),
    ]
    kinds = Counter(type(layer).__name__ for layer in model.modules() if not any(layer.children()))
    configuration = [
        (quantity, COMPUTED[quantity](model), QUANTITIES[quantity].meaning)
        for quantity in CONFIGURATION[family_of(name)].split()
    ]
    sections = {
        "Size": aligned(facts),
        "Stages": render(stages(model, size), Format.table),
        "Layers": aligned((kind, f"{count:,}") for kind, count in kinds.most_common()),
        "Configuration": aligned(configuration),
        "Claims": render(claims[CLAIM_COLUMNS[1:]], Format.table),
    }
    differing = claims[claims["verdict"] == "differs"]
    if len(differing):
        reasons = zip(differing["item"], differing["quantity"], differing["why"], strict=True)
        sections["Why they differ"] = aligned(reasons)
    for title, body in sections.items():
        typer.echo(f"\n{title}\n{body}")


@app.command(
    epilog="\n\n".join(
        f"\b\n{title}:\n"
        + "\n".join(f"  {name:14}  {meaning}" for name, meaning in meanings.items())
        for title, meanings in (("Modes", MODES), ("Verdicts", VERDICTS))
    )
)
def claims(
    paper: Annotated[
        str | None, typer.Option(help=f"Only the claims of one paper: {', '.join(PAPERS)}.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="Only the claims of one mode: " + ", ".join(MODES) + "."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only the claims about one of our networks.")
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option(help=f"Only the claims with one verdict: {', '.join(VERDICTS)}."),
    ] = None,
    format: FormatOption = Format.table,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="First recompute our value of every exact claim and rewrite data/claims.",
        ),
    ] = False,
) -> None:
    """List what the papers claim, with our value beside theirs.

    The table leaves out how a value was obtained and why it differs; csv and json hold every
    column.

    \b
    Examples:
      paperrepro claims --paper rapidnet --mode exact
      paperrepro claims --model fasternet_s
      paperrepro claims --verdict differs --format json
      paperrepro claims --verdict "not reproduced" --format csv > missing.csv
    """
    with exit_on_error(2):
        if model is not None:
            check_name(model)
        if verdict is not None and verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {verdict!r}; use one of {', '.join(VERDICTS)}")
        for option, value, allowed in (("paper", paper, PAPERS), ("mode", mode, MODES)):
            if value is not None and value not in allowed:
                raise ValueError(f"unknown {option} {value!r}; use one of {', '.join(allowed)}")
    with exit_on_error(1):
        if update:
            changed = update_claims()
            typer.echo(f"{len(changed)} changed: {', '.join(changed) or 'none'}", err=True)
        table = load_claims(paper, mode)
    if model is not None:
        table = table[about(model, table)]
    if verdict is not None:
        table = table[table["verdict"] == verdict]
    if format in (Format.table, Format.markdown):
        table = table[CLAIM_COLUMNS]
    typer.echo(render(table, format))


def about(name: str, claims: pd.DataFrame) -> pd.Series:
    """Which claims are about the network of that name."""
    return claims["model"].map(lambda pattern: fnmatch(name, pattern)).astype(bool)


def paper_title(model: Backbone) -> str:
    """The first sentence of the network's module: name, paper, authors, venue."""
    description = inspect.getdoc(sys.modules[type(model).__module__]) or ""
    return " ".join(description.split("\n\n")[0].split())


def stages(model: Backbone, size: int) -> pd.DataFrame:
    """Output shape, blocks, parameters and multiply-adds of the stem, the stages and the head."""
    names = ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]
    depths = ["", *map(str, stage_depths(model)), ""]
    x = torch.zeros(1, 3, size, size, device="meta")
    rows = []
    for part, depth, module in zip(
        names, depths, (model.stem, *model.stages, model.head), strict=True
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = module(x)
        rows.append(
            {
                "stage": part,
                "output": " x ".join(map(str, x.shape[1:])),
                "blocks": depth,
                "params": sum(parameter.numel() for parameter in module.parameters()),
                "macs": counter.get_total_flops() // 2,
            }
        )
    return pd.DataFrame(rows)


TRAINING = (train, evaluate, recipe, experiment)
ANALYSIS = (erf, salient, similarity, approximate, shape_bias, attribute)
EXPORT = (export, verify, plan, verify_networks)
for command in (*TRAINING, *ANALYSIS, *EXPORT):
    app.command()(command)

if __name__ == "__main__":
    app()
