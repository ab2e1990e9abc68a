"""What became of the claims: every verdict follows from its stored result and nothing else."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from paperrepro.claims import LADDER, PAPERS, load_claims
from paperrepro.claims.ablations import COMPARED, differences
from paperrepro.claims.compare import compare, compare_accuracies
from paperrepro.claims.headlines import FROM_WORST, headlines
from paperrepro.claims.judged import judged_claims
from paperrepro.claims.outcomes import (
    COLUMNS,
    RULES,
    derive,
    load_outcomes,
    power,
    ratio_call,
    update_outcomes,
)
from paperrepro.claims.third_party import HOW, third_party
from paperrepro.cli import app
from paperrepro.results import load_result
from paperrepro.training.studies import EXPERIMENTS


@pytest.fixture(scope="module")
def derived():
    return derive()


def test_every_outcome_is_what_its_result_gives(derived):
    stored = load_outcomes()
    assert list(stored.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(
        stored, derived, check_dtype=False, rtol=1e-6, obj="run `paperrepro outcomes --update`"
    )


def test_outcomes_speak_of_claims_that_there_are(derived):
    claims = set(load_claims()["id"])
    assert derived["id"].is_unique
    for row in derived.itertuples():
        assert set(row.claims.split()) <= claims
        assert row.verdict in LADDER and row.rule in RULES
        assert row.low <= row.ours <= row.high
        told = load_result(row.result).provenance
        assert (row.command, row.processor) == (told["command"], told["processor"])


def test_every_claim_stands_on_the_ladder():
    judged = judged_claims()
    assert list(judged["id"]) == list(load_claims()["id"])
    assert set(judged["verdict"]) <= set(LADDER)
    untested = judged[judged["verdict"] == "not tested"]
    assert (untested["how"].str.len() > 0).all(), "say what would test it"
    assert set(untested["mode"]) <= {"measured", "small", "command"}


def test_a_measured_verdict_stands_beside_what_was_measured():
    judged = judged_claims().set_index("id")
    measured = judged["verdict"].isin(["seen here", "order holds", "inconclusive", "opposite here"])
    numbers = [f"outcome_{name}" for name in ("paper", "ours", "low", "high", "visible")]
    assert measured.any() and judged[measured][numbers].notna().all(axis=None)
    untouched = judged["verdict"].isin(["not tested", "quoted"])
    assert judged[untouched].filter(like="outcome_").isna().all(axis=None)
    of = load_outcomes().set_index("id")
    row = judged.loc["replknet-t2-mobilenet_v2_13x13_without_shortcut-top1"]
    outcome = of.loc[row["outcome_id"]]
    assert row["outcome_id"] == "mobilenetv2-kernels-13x13-no-shortcut-against-3x3-no-shortcut"
    assert (row["verdict"], row["outcome_low"]) == (outcome["verdict"], outcome["low"])


def test_a_size_of_others_stands_beside_its_count():
    judged = judged_claims().set_index("id")
    row = judged.loc["replknet-t6-swin_l_384_22k-macs"]
    assert (row["verdict"], row["outcome_kind"], row["outcome_ours"]) == (
        "recomputed",
        "count",
        103.9,
    )
    row = judged.loc["mobileone-t1a-mobile_latency_and_flops-correlation"]
    assert (row["verdict"], row["outcome_ours"]) == ("differs", 0.4532)
    assert judged.loc[row.name.replace("-mobile_", "-cpu_"), "outcome_kind"] == "correlation"
    counted = judged[judged["outcome_kind"] == "count"]
    assert set(counted["verdict"]) == {"recomputed", "differs"}
    assert counted["outcome_note"].notna().all()


def test_a_comparison_is_of_variants_and_claims_that_there_are():
    values = load_claims().set_index("id")["paper_value"]
    for block in COMPARED:
        for pair in block.pairs:
            assert set(pair) <= set(EXPERIMENTS[block.experiment].variants)
            assert all(f"{block.claims[label]}-top1" in values for label in pair)


def test_the_papers_side_of_a_difference():
    """Guideline 2 of RepLKNet: (53.98 - 68.67) - (72.53 - 71.76)."""
    of = load_outcomes().set_index("id")["paper"]
    assert of["fasternet-block-relu-against-r-1-4"] == pytest.approx(71.3 - 71.9)
    name = "mobilenetv2-kernels-13x13-no-shortcut-against-3x3-no-shortcut-against-13x13-against-3x3"
    assert of[name] == pytest.approx((53.98 - 68.67) - (72.53 - 71.76), abs=5e-3)


def test_stored_answers_give_the_stored_accuracies():
    for one in differences():
        if not one.answers or one.what != "top1":
            continue
        table = load_result(f"experiment-{one.experiment}").table
        first, second = one.pair.split(" against ")[:2]
        if "(" not in first:
            means = table.groupby("variant")["top1"].mean()
            assert one.ours.difference == pytest.approx(means[first] - means[second], abs=0.02)


def test_without_the_answers_an_interval_is_no_narrower():
    """Two variants that share most of what makes an image hard."""
    rng = np.random.default_rng(0)
    ability = rng.standard_normal(2000)
    answers = {
        label: ability + rng.standard_normal((5, 2000)) + shift > 0
        for label, shift in (("a", 0.1), ("b", 0))
    }
    known = compare(answers, {"a": 1, "b": -1})
    top1 = [list(100 * answers[label].mean(axis=1)) for label in "ab"]
    bound = compare_accuracies(*top1, images=2000)
    assert bound.difference == pytest.approx(known.difference)
    assert bound.error > 1.2 * known.error


def test_calls_of_ratios():
    assert ratio_call(3.1, 1.5, 1.9) == "order holds"
    assert ratio_call(3.1, 2.5, 3.4) == ratio_call(3.1, 4, 5) == "seen here"
    assert ratio_call(3.1, 0.9, 1.1) == "inconclusive"
    assert ratio_call(3.1, 0.5, 0.7) == ratio_call(1, 1.1, 1.2) == "opposite here"
    assert ratio_call(0.3, 0.2, 0.4) == "seen here"
    assert ratio_call(0.3, 0.5, 0.6) == "order holds"


def test_what_is_undecided_had_the_power_or_had_not():
    rows = [
        ("difference", "fasternet-t5-x", 1.0, 2.0, "order holds"),
        ("difference", "fasternet-t5-x", -1.0, 0.5, "inconclusive"),
        ("difference", "fasternet-t5-x", 1.0, 1.5, "inconclusive"),
        ("difference", "fasternet-t5-x", 0.0, 1.5, "inconclusive"),
        ("ratio", "fasternet-t1-x", 2.0, 1.1, "seen here"),
        ("difference", "replknet-t2-x", -3.0, 3.0, "opposite here"),
    ]
    told = power(pd.DataFrame(rows, columns=["kind", "claims", "paper", "visible", "verdict"]))
    assert told.to_numpy().tolist() == [["fasternet", 4, 1, 1, 2], ["replknet", 1, 1, 0, 0]]
    stored = power(load_outcomes())
    parts = stored[["decided", "powered", "weak"]].sum(axis=1)
    assert (parts == stored["differences"]).all()


def test_update_writes_what_changed_and_then_nothing(tmp_path, monkeypatch, derived):
    monkeypatch.setattr("paperrepro.claims.outcomes.derive", lambda: derived)
    path = tmp_path / "outcomes.csv"
    assert sorted(update_outcomes(path)) == sorted(derived["id"])
    before = path.read_bytes()
    assert update_outcomes(path) == [] and path.read_bytes() == before
    name = derived["id"].iloc[0]
    typed = before.decode().replace(f"{name},", f"{name}-typed,", 1)
    path.write_text(typed)
    assert update_outcomes(path) == [name, f"{name}-typed"]


def test_the_command():
    run = CliRunner().invoke
    shown = run(app, ["outcomes", "--paper", "mobileone", "--verdict", "opposite here"])
    assert shown.exit_code == 0, shown.output
    assert "latency on a CPU and flops" in shown.stdout and "ReLU against" not in shown.stdout
    assert shown.stderr.startswith("mobileone: ") and len(shown.stderr.splitlines()) == 1
    wrong = run(app, ["outcomes", "--verdict", "agrees"])
    assert wrong.exit_code == 2 and "opposite here" in wrong.stderr


def test_headlines_rest_on_what_there_is():
    table = headlines().set_index("id")
    assert table.index.is_unique and set(table["paper"]) == set(PAPERS)
    assert 25 <= len(table) <= 30 and set(table["verdict"]) <= set(LADDER)
    tests, book = Path(__file__).parent, Path(__file__).parents[1] / "book"
    for row in table.itertuples():
        assert row.outcomes or row.claims or row.proof
        chapter, _, section = row.section.partition("#")
        text = (book / f"{chapter}.ipynb").read_text(encoding="utf-8")
        titles = re.findall(r'"#+ (.*?)(?:\\n)?"', text)
        assert not section or section in {slug(title) for title in titles}
        if row.proof:
            file, _, name = row.proof.partition("::")
            assert f"def {name}(" in (tests / file).read_text(encoding="utf-8")


def slug(title):
    """As the book makes a section's address of its title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def test_of_several_answers_the_least_favourable_counts():
    assert set(FROM_WORST) == set(LADDER) - {"quoted"}
    of = load_outcomes().set_index("id")["verdict"]
    table = headlines().set_index("id")
    pair = [
        "mobilenetv2-kernels-13x13-3x3-against-13x13",
        "mobilenetv2-kernels-9x9-3x3-against-9x9",
    ]
    assert table.loc["replknet-reparam", "verdict"] == min(of[pair], key=FROM_WORST.index)
    assert table.loc["mobileone-same-function", "verdict"] == "proved"


def test_a_parameter_count_stands_beside_the_plain_one():
    """MobileOne-S0's branches merge; RapidNet-Ti's table counts both of its heads."""
    judged = judged_claims().set_index("id")
    plain = judged[["plain_params", "plain_params_fused"]]
    assert plain.loc["mobileone-t8-mobileone_s0-params"].tolist() == [5293272, 2078504]
    rapid = judged.loc["rapidnet-t2-rapidnet_ti-params"]
    assert float(rapid["ours"]) == round(rapid["plain_params"] / 1e6, 3)
    assert rapid["plain_params"] > rapid["plain_params_fused"]
    own = (
        (judged["mode"] == "exact") & (judged["quantity"] == "params") & ~judged["config"].map(bool)
    )
    assert (plain.notna().all(axis=1) == own).all()


def test_others_found_what_the_papers_say():
    table = third_party()
    beside = judged_claims().set_index("id").loc[table["claim"]]
    assert list(beside["others_top1"]) == list(table["top1"])
    assert set(beside["verdict"]) == {"not tested"}, "theirs is no verdict of ours"
    assert set(table["how"]) <= set(HOW) and table["source"].str.startswith("https://").all()
    assert table["paper"].notna().all(), "a claim that there is not"
    assert (table["top5"] > table["top1"]).all()
    assert table["difference"].abs().max() < 0.4
