"""Every claim with its word of the ladder and what the word rests on.

A word is never typed: it follows from an outcome, from a size that was counted
(`paperrepro benchmark peers`), or from our value and its tolerance.

    >>> from paperrepro.claims.judged import judged_claims
    >>> judged_claims("fasternet")[["subject", "quantity", "paper_value", "verdict"]]
"""

from typing import TYPE_CHECKING

from ..results import load_result
from . import third_party
from .outcomes import load_outcomes, provenance
from .table import load_claims

if TYPE_CHECKING:
    import pandas as pd

STEPS = {
    "agrees": "recomputed",
    "differs": "differs",
    "quoted": "quoted",
    "not reproduced": "not tested",
}
"""Of LADDER, where a claim stands that no outcome is about: by its verdict of `load_claims`."""

COUNTS = {
    "plain": "the count, rounded, is the paper's number",
    "as run": "the count of the re-parameterized network is",
    "at N pixels": "the count on larger images is: the network's own paper uses them",
    "nearly": "within 2 %: counters differ in norms, activations and attention, and tables in "
    "their rounding",
    "neither": "unexplained",
}
"""How the size that a paper quotes of a network of others compares with our count of it."""


def judged_claims(paper: str | None = None, mode: str | None = None) -> "pd.DataFrame":
    """Every claim with its word of LADDER, and the outcome that gave it.

    Args:
        paper: one of PAPERS; None for all.
        mode: one of MODES; None for all.

    Returns:
        The rows and columns of `load_claims`, with `verdict` a key of LADDER; then the columns of
        `load_outcomes` as `outcome_id`, `outcome_statement`, `outcome_ours`, `outcome_low` and so
        on, empty where no outcome is about the claim. What was computed without a measurement of
        ours, the size of another's network or a correlation of a paper's own numbers, has its
        value there, with the kind "count" and no id. Last come `others_top1`, `others_top5`,
        `others_how`, `others_name` and `others_source`: what neither we nor the authors measured;
        and of a parameter count of ours `plain_params` and `plain_params_fused`: every parameter,
        in training and re-parameterized, whatever the paper leaves out.

    Raises:
        ValueError: an unknown paper or mode, or a bad row, named by file, line and value.
    """
    claims = load_claims(paper, mode)
    found = claims.join(answers().add_prefix("outcome_"), on="id")
    found = found.join(third_party.stored().set_index("claim").add_prefix("others_"), on="id")
    plain = load_result("complexity").table.set_index("name")[["params", "params_fused"]]
    counted = claims[(claims["quantity"] == "params") & (claims["mode"] == "exact")]
    counted = counted.loc[~counted["config"].map(bool), ["model"]]
    found = found.join(
        counted.join(plain.astype("Int64").add_prefix("plain_"), on="model").drop(columns="model")
    )
    word = found.pop("outcome_verdict")
    return found.assign(verdict=word.fillna(claims["verdict"].map(STEPS)))


def answers() -> "pd.DataFrame":
    """By the claim's id, what answers it: an outcome, or what was computed without a measurement.

    Of several outcomes it is the first that names the claim first, else the first that names it.
    """
    import pandas as pd

    outcomes = load_outcomes()
    each = outcomes.assign(claim=outcomes["claims"].str.split()).explode("claim")
    others = each.duplicated("id")
    every = pd.concat([each[~others], each[others], counts(), recomputed_correlations()])
    return every.drop_duplicates("claim").set_index("claim").drop(columns="claims")


def counts() -> "pd.DataFrame":
    """The sizes of others' networks that were counted, in the form of the outcomes."""
    import pandas as pd

    peers = load_result("peers").table
    compared = peers["agrees"].str.replace(r"\d+", "N", regex=True)
    return pd.DataFrame(
        {
            "claim": peers["claim"],
            "kind": "count",
            "statement": peers["twin"] + " at " + peers["size"].astype(str) + " pixels",
            "unit": peers["unit"],
            "paper": peers["paper"],
            "ours": peers["ours"].where(compared != "as run", peers["ours_as_run"]),
            "verdict": compared.map(
                lambda how: "differs" if how in ("nearly", "neither") else "recomputed"
            ),
            "note": compared.map(COUNTS),
            **provenance("peers"),
        }
    )


def recomputed_correlations() -> "pd.DataFrame":
    """MobileOne's Table 1a, from the latencies and counts that its Table 8 prints."""
    import pandas as pd

    table = load_result("correlation").table
    own = table[table["networks"] == "MobileOne's Table 8, its peers"].replace(
        {"device": {"phone": "mobile"}, "count": {"macs": "flops", "params": "parameters"}}
    )
    rows = [
        {
            "claim": f"mobileone-t1a-{row['device']}_latency_and_{row['count']}-{quantity}",
            "kind": "count",
            "statement": f"Spearman, {row['n']} peers of Table 8",
            "unit": "",
            "paper": row[f"paper_{column}"],
            "ours": row[column],
            "verdict": "recomputed"
            if abs(row[column] - row[f"paper_{column}"]) <= 0.005
            else "differs",
            "note": "the paper does not say which networks entered it",
            **provenance("correlation"),
        }
        for row in own.to_dict("records")
        for quantity, column in (("correlation", "rho"), ("p_value", "p_value"))
    ]
    return pd.DataFrame(rows)
