"""`paperrepro models`, `info`, `claims` and `outcomes`."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from ..claims import LADDER, MODES, PAPERS
from ..claims.table import check_choice
from .console import Format, FormatOption, aligned, exit_on_error, render

if TYPE_CHECKING:
    import pandas as pd

LARGEST_SIDE = 16384
OUTCOME_COLUMNS = ["statement", "unit", "paper", "ours", "low", "high", "n", "verdict"]
CLAIM_COLUMNS = ["paper", "item", "subject", "quantity", "unit", "paper_value", "ours", "verdict"]


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="A family, or a pattern such as 'fast*'; all when left out."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Only this family: mobileone, fasternet, replknet, mobilevig, mobilevigv2 or "
            "rapidnet."
        ),
    ] = None,
    format: FormatOption = Format.table,
    update: Annotated[
        Path | None,
        typer.Option(
            help="First count anew, and write the table that holds the counts.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """List the networks with their size and the paper's accuracy.

    Parameters (params) and multiply-adds (macs, one image of 224 x 224) are ours, counted from the
    networks as they are trained and as they run after re-parameterization (fused). The top-1
    accuracy is the paper's, on ImageNet-1K; it was not rerun.

    \b
    Examples:
      paperrepro models
      paperrepro models "*_ti"
      paperrepro models --family rapidnet
      paperrepro models --format csv > models.csv
    """
    import pandas as pd

    from ..complexity import complexity_table, stored_complexity
    from ..files import check_writable
    from ..models import family_of, list_models
    from ..results import save_result

    with exit_on_error(2):
        if pattern and family:
            raise ValueError(f"give a pattern or --family, not both: {pattern} and {family}")
        names = list_models(pattern or family)
    if update:
        with exit_on_error(1):
            check_writable(update.parent)
            save_result(update, complexity_table(), command="paperrepro models --update FILE")
    rows = []
    for name in names:
        size = stored_complexity(name)
        release = family_of(name).releases.get(name)
        rows.append(
            {
                "name": name,
                "params": size.params,
                "params_fused": size.params_fused,
                "macs": size.macs,
                "macs_fused": size.macs_fused,
                "paper_top1": release.top1 if release else None,
            }
        )
    typer.echo(render(pd.DataFrame(rows), format))


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
    from ..claims.judged import judged_claims
    from ..claims.reproduce import configuration, network
    from ..complexity import complexity, layer_counts, stage_table
    from ..models import check_name, family_of
    from ..models.backbone import SMALLEST_SIDE

    with exit_on_error(2):
        check_name(name)
        if not SMALLEST_SIDE <= size <= LARGEST_SIDE:
            raise ValueError(
                f"size {size}: the networks take {SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
            )
    model = network(name)
    counts = complexity(name, size)
    family = family_of(name)
    release = family.releases.get(name)
    with exit_on_error(1):
        claims = judged_claims()
    claims = claims[about(name, claims)]

    typer.echo(f"{name}  {family.paper or ''}".rstrip())
    by_rule = f"not stated: give parameters= in the Family of {family.name}"
    if counts.params_paper is not None:
        by_rule = f"{counts.params_paper:,}"
    facts = [
        ("input", f"{model.in_chans} x {size} x {size}"),
        ("training parameters", f"{counts.params:,}"),
        ("- re-parameterized", f"{counts.params_fused:,}"),
        ("- by the paper's counting rule", by_rule),
        ("multiply-adds", f"{counts.macs:,}"),
        ("- re-parameterized", f"{counts.macs_fused:,}"),
    ]
    if release:
        facts += [
            ("the paper's top-1", f"{release.top1} % on ImageNet-1K, not rerun"),
            ("released weights", release.url or f"no download, see {release.page}"),
        ]
    sections = {
        "Size": aligned(facts),
        "Stages": render(stage_table(model, size), Format.table),
        "Layers": aligned((kind, f"{count:,}") for kind, count in layer_counts(model).items()),
    }
    if described := configuration(name):
        rows = [(quantity, *texts) for quantity, texts in described.items()]
        sections["Configuration"] = aligned(rows)
    if len(claims):
        sections["Claims"] = render(claims[CLAIM_COLUMNS[1:]], Format.table)
    differing = claims[claims["verdict"] == "differs"]
    if len(differing):
        reasons = zip(differing["item"], differing["quantity"], differing["why"], strict=True)
        sections["Why they differ"] = aligned(reasons)
    for title, body in sections.items():
        typer.echo(f"\n{title}\n{body}")


def glossary(title: str, meanings: Mapping[str, str]) -> str:
    """Words and what they mean, as the end of a help text."""
    lines = (
        fill(meaning, 78, initial_indent=f"  {name:14}  ", subsequent_indent=" " * 18)
        for name, meaning in meanings.items()
    )
    return f"\b\n{title}:\n" + "\n".join(lines)


OUTCOMES_EPILOG = glossary("Verdicts", LADDER)
CLAIMS_EPILOG = glossary("Modes", MODES) + "\n\n" + OUTCOMES_EPILOG


def draw(
    name: Annotated[
        str,
        typer.Argument(help="A name that `paperrepro models` lists, or timm's or torchvision's."),
    ],
    block: Annotated[
        str | None,
        typer.Option(
            help="Only this part, by its name in the code: stages.0.blocks.1, or a part of one.",
            metavar="PART",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square image in pixels; 224 when left out.",
            metavar="PIXELS",
        ),
    ] = None,
    fused: Annotated[
        bool, typer.Option("--fused", help="Beside it the re-parameterized form, as it runs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The picture (.svg).", metavar="FILE", dir_okay=False)
    ] = None,
) -> None:
    """Draw a network or one of its blocks as it is built: kernels, channels, branches, maps.

    The same in words goes to standard output; without --out, the words alone. The picture is an
    SVG with text, for a browser, a page or a paper, in light and dark.

    \b
    Examples:
      paperrepro draw replknet_31b --out network.svg
      paperrepro draw mobileone_s0 --block stages.1.blocks.2 --fused --out block.svg
      paperrepro draw resnet18 --block layer2.0
    """
    from .console import require

    with exit_on_error(2):
        require("svg", "book")
        from ..claims.reproduce import network
        from ..drawing import draw as draw_module
        from ..models import is_known
        from ..networks import build_meta

        model = network(name) if is_known(name) else build_meta(name)
        title = f"{name}, {block}" if block else name
        drawing = draw_module(model, size, block=block, fused=fused, title=title)
        if out:
            drawing.save(out)
            typer.echo(f"wrote {out}", err=True)
    typer.echo(drawing.alt)


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
        typer.Option(help=f"Only the claims with one verdict: {', '.join(LADDER)}."),
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
    """List what the papers claim, with our value beside theirs and what became of the claim.

    The table leaves out how a value was obtained, why it differs and what was measured instead. The
    formats csv and json hold every column, with the interval of each outcome, what could have been
    seen and the command that measures it again, and with accuracies that others reached.
    `paperrepro outcomes` lists the outcomes alone.

    \b
    Examples:
      paperrepro claims --paper rapidnet --mode exact
      paperrepro claims --model fasternet_s
      paperrepro claims --verdict differs --format json
      paperrepro claims --verdict "not tested" --format csv > missing.csv
    """
    from ..claims.judged import judged_claims

    with exit_on_error(2):
        if model is not None:
            from ..models import check_name

            check_name(model)
        check_choice("paper", paper, PAPERS)
        check_choice("mode", mode, MODES)
        check_choice("verdict", verdict, LADDER)
    with exit_on_error(1):
        if update:
            from ..claims.reproduce import update_claims

            changed = update_claims()
            typer.echo(f"{len(changed)} changed: {', '.join(changed) or 'none'}", err=True)
        table = judged_claims(paper, mode)
    if model is not None:
        table = table[about(model, table)]
    if verdict is not None:
        table = table[table["verdict"] == verdict]
    if format in (Format.table, Format.markdown):
        table = table[CLAIM_COLUMNS]
    typer.echo(render(table, format))


def outcomes(
    paper: Annotated[
        str | None, typer.Option(help=f"Only the outcomes of one paper: {', '.join(PAPERS)}.")
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option(help=f"Only the outcomes with one verdict: {', '.join(LADDER)}."),
    ] = None,
    format: FormatOption = Format.table,
    update: Annotated[
        bool,
        typer.Option("--update", help="First derive every outcome anew from data/results."),
    ] = False,
) -> None:
    """List what was measured here of the papers' claims: differences, ratios, correlations.

    Each has its interval beside the paper's number, and a verdict that follows from them. The
    table leaves out the result it was computed from; csv and json hold every column. Below a table
    stands how many differences between trained networks are decided, and of how many the design
    could have shown an effect as large as the paper's.

    \b
    Examples:
      paperrepro outcomes --paper fasternet
      paperrepro outcomes --verdict "opposite here"
      paperrepro outcomes --format csv > outcomes.csv
    """
    from ..claims.compare import POWER
    from ..claims.outcomes import load_outcomes, power, update_outcomes

    with exit_on_error(2):
        check_choice("paper", paper, PAPERS)
        check_choice("verdict", verdict, LADDER)
    with exit_on_error(1):
        if update:
            typer.echo(f"{len(update_outcomes())} changed", err=True)
        table = load_outcomes()
    if paper is not None:
        table = table[table["claims"].str.startswith(paper)]
    told = table if verdict is None else table[table["verdict"] == verdict]
    if format not in (Format.table, Format.markdown):
        typer.echo(render(told, format))
        return
    typer.echo(render(told[OUTCOME_COLUMNS], format))
    for row in power(table).itertuples():
        typer.echo(
            f"{row.paper}: {row.differences} differences between trained networks, {row.decided} "
            f"decided, {row.powered} undecided although the paper's effect would have been seen "
            f"(power {POWER}), {row.weak} too small an experiment",
            err=True,
        )


def about(name: str, claims: "pd.DataFrame") -> "pd.Series":
    """Which claims are about the network of that name."""
    return claims["model"].map(lambda pattern: fnmatch(name, pattern)).astype(bool)
