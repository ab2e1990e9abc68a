"""The papers' side of data/claims: the values as typed, the tolerances, the tables that are there.

Nothing recomputes a quoted number, so that a slip of the hand in one would pass every other test.
claims.sha256 holds a checksum per file over the columns GUARDED. After a change, and after a look
at the paper, `python tests/test_claims_guard.py` writes it anew.
"""

import hashlib
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from paperrepro.claims import PAPERS, claims_folder, load_claims, read_rows

GUARDED = ("id", "paper_value", "size", "tolerance")
CHECKSUMS = Path(__file__).with_name("claims.sha256")
PAPERS_TEXT = Path(__file__).parents[2] / "shared" / "papers"

# Quantities of a configuration: a network has exactly that one, or another.
WITHOUT_TOLERANCE = {
    "stem_channels",
    "head_channels",
    "classes",
    "partial_ratio",
    "expansion",
    "dw_ratio",
}
LAST_TABLE = {"rapidnet": 6, "fasternet": 9, "mobileone": 11, "mobilevigv2": 3, "replknet": 11}
# Rows per table: networks times columns, less the cells that the paper leaves empty.
ROWS = {
    ("rapidnet", "Table 1"): 4 * 5,
    ("rapidnet", "Table 2"): 22 * 4 - 2,
    ("rapidnet", "Table 3"): 14 * 8 - 1,
    ("rapidnet", "Table 4"): 6 * 2,
    ("rapidnet", "Table 5"): 4 * 2,
    ("rapidnet", "Table 6"): 4 * 2,
    ("fasternet", "Table 1"): 4 * (4 * 7 + 3),
    ("fasternet", "Table 2"): 5 * 3,
    ("fasternet", "Table 3"): 35 * 6 - 4,
    ("fasternet", "Table 4"): 12 * 9,
    ("fasternet", "Table 5"): 10 * 4,
    ("fasternet", "Table 6"): 27 + 7 * 6,
    ("fasternet", "Table 7"): 8 + 2 * 3,
    ("fasternet", "Table 8"): 6 * 5 + 8,
    ("fasternet", "Table 9"): 10 * 10 - 3,
    ("fasternet", "Abstract"): 5,
    ("fasternet", "Section 4.1"): 3,
    ("mobileone", "Table 1a"): 2 * 4,
    ("mobileone", "Table 1b"): 3,
    ("mobileone", "Table 2"): 5 * 5 + 3,
    ("mobileone", "Table 3"): 7,
    ("mobileone", "Table 4"): 13 * 2,
    ("mobileone", "Table 5"): 4,
    ("mobileone", "Table 6"): 2 * 5,
    ("mobileone", "Table 7"): 3 * 2,
    ("mobileone", "Figure 4"): 3,
    ("mobileone", "Table 8"): 26 * 5,
    ("mobileone", "Table 9a"): 11,
    ("mobileone", "Table 9b"): 10 * 2 - 4,
    ("mobileone", "Table 10"): 3 * 3,
    ("mobileone", "Table 11"): 5 * 2,
    ("mobileone", "Abstract"): 1,
    ("mobilevigv2", "Table 1"): 29 * 4 - 3,
    ("mobilevigv2", "Table 2"): 8 * 8 - 2,
    ("mobilevigv2", "Table 3"): 6 * 3,
    ("replknet", "Table 1"): 3 * 2 * 10,
    ("replknet", "Table 2"): 4,
    ("replknet", "Table 3"): 5 * 2,
    ("replknet", "Table 4"): 3 * 2,
    ("replknet", "Table 5"): 5 * 7,
    ("replknet", "Table 6"): 7 * 4 + 4,
    ("replknet", "Table 7"): 9 * 4 - 8,
    ("replknet", "Table 8"): 16 * 4 - 10,
    ("replknet", "Table 9"): 12 * 4 - 9,
    ("replknet", "Table 10"): 4 * 4,
    ("replknet", "Table 11"): 4 * 3,
    ("replknet", "Section 3"): 2,
    ("replknet", "Section 4.2"): 7,
    ("replknet", "Section 4.3"): 1,
    ("replknet", "Appendix A"): 1,
}


def checksum(path: Path) -> str:
    rows = sorted([row[column] for column in GUARDED] for _, row in read_rows(path))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def write_checksums() -> None:
    paths = sorted(claims_folder().glob("*.csv"))
    CHECKSUMS.write_text("".join(f"{checksum(path)}  {path.name}\n" for path in paths))


def test_the_guarded_columns_are_as_they_were_checked():
    recorded = dict(line.split()[::-1] for line in CHECKSUMS.read_text().splitlines())
    current = {path.name: checksum(path) for path in claims_folder().glob("*.csv")}
    changed = {name for name, _ in recorded.items() ^ current.items()}
    assert not changed, (
        f"{', '.join(sorted(changed))}: {', '.join(GUARDED)} changed; `git diff data/claims` "
        "shows where. Check it in the paper, then run `python tests/test_claims_guard.py`"
    )


def counted_claims() -> list[dict]:
    """The exact claims that are numbers, each with the unit of the paper's last digit, and whether
    the paper truncates there, which `how` says."""
    table = load_claims(mode="exact")
    claims = table[table["tolerance"].notna()].to_dict("records")
    for claim in claims:
        claim["unit_of_last_digit"] = Decimal(1).scaleb(claim["paper_value"].as_tuple().exponent)
        claim["truncated"] = re.search(r"\bcut\b", claim["how"]) is not None
    return claims


def test_tolerances_follow_from_the_printed_digits():
    wrong = {}
    for claim in counted_claims():
        units = Decimal(1) if claim["truncated"] else Decimal("0.5")
        if claim["quantity"] in WITHOUT_TOLERANCE:
            units = Decimal(0)
        if claim["tolerance"] != units * claim["unit_of_last_digit"]:
            wrong[claim["id"]] = claim["tolerance"], units * claim["unit_of_last_digit"]
    assert not wrong, f"tolerance, and what the paper's digits give: {wrong}"


def test_a_truncated_value_lies_below_ours_and_less_than_one_unit():
    """The tolerance is two-sided, and so does not say on which side of the paper we may be."""
    truncated = [claim for claim in counted_claims() if claim["truncated"]]
    for claim in truncated:
        difference = claim["ours"] - claim["paper_value"]
        agrees = 0 <= difference < claim["unit_of_last_digit"]
        assert agrees == (claim["verdict"] == "agrees"), claim["id"]
    assert {claim["paper"] for claim in truncated} == {"rapidnet", "replknet"}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_of_the_papers_is_there(paper):
    items = load_claims(paper=paper)["item"]
    present = {int(match[1]) for item in items if (match := re.fullmatch(r"Table (\d+)\w?", item))}
    assert present == set(range(1, LAST_TABLE[paper] + 1))


@pytest.mark.parametrize("paper", PAPERS)
def test_the_papers_have_no_other_tables(paper):
    text = PAPERS_TEXT / f"{paper}.txt"
    if not text.is_file():
        pytest.skip(f"{text} is not beside the checkout")
    captions = re.findall(r"^Table (\d+)[.:]", text.read_text(encoding="utf-8"), re.M)
    assert set(map(int, captions)) == set(range(1, LAST_TABLE[paper] + 1))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_downstream_value_stands_in_the_papers_text(paper):
    """The values of the rows on detection and segmentation, looked up in the text once more: each
    is a cell of a line that begins with the row's network."""
    text = PAPERS_TEXT / f"{paper}.txt"
    if not text.is_file():
        pytest.skip(f"{text} is not beside the checkout")
    lines = [line for line in text.read_text(encoding="utf-8").splitlines() if "\t" in line]
    claims = load_claims(paper=paper)
    dense = claims["quantity"].str.startswith("ap") | claims["subject"].str.contains("UperNet|Cas")
    for claim in claims[dense].itertuples():
        network = claim.subject.split(",")[0]
        cells = [set(re.split(r"[\t $]|</?b>", line)) for line in lines if network in line]
        assert any(str(claim.paper_value) in each for each in cells), claim.id
    assert dense.sum() >= {"mobileone": 11}.get(paper, 48)


def test_every_table_has_all_its_rows():
    assert load_claims().groupby(["paper", "item"]).size().to_dict() == ROWS


def test_papers_that_quote_another_number_of_one_network_say_so():
    """Sizes and accuracies of others' classifiers: where two tables differ by more than rounding,
    one of them has a reason. Speeds differ with the device, which each paper names."""
    claims = load_claims(mode="quoted")
    sizes = claims[claims["quantity"].isin(["params", "macs", "top1"])].copy()
    sizes["name"] = sizes["subject"].str.replace(r"[ -]?[x×](?=\d)", "x", regex=True)
    sizes["name"] = sizes["name"].str.replace("MobileNetV2x1.0", "MobileNetV2")
    sizes["value"] = sizes["paper_value"].astype(float) * sizes["unit"].map({"G": 1e3}).fillna(1)
    sizes["half"] = [
        float(Decimal(1).scaleb(value.as_tuple().exponent)) * (500 if unit == "G" else 0.5)
        for value, unit in zip(sizes["paper_value"], sizes["unit"], strict=True)
    ]
    # FasterNet and RepLKNet count whole detectors and segmenters there.
    dense = sizes["item"].isin(["Table 4", "Table 7", "Table 8", "Table 9"])
    dense &= sizes["paper"].isin(["fasternet", "replknet"])
    conflicts = set()
    for (name, quantity), rows in sizes[~dense].groupby(["name", "quantity"]):
        lowest = rows.loc[rows["value"].idxmin()]
        highest = rows.loc[rows["value"].idxmax()]
        counters = 0.01 * highest["value"] if quantity != "top1" else 0
        slack = lowest["half"] + highest["half"] + counters
        if highest["value"] - lowest["value"] > slack + 1e-9:
            conflicts.add((name, quantity))
            assert (rows["why"] != "").any(), f"{lowest['id']} and {highest['id']}"
    assert ("MobileNetV2x1.4", "params") in conflicts and ("EfficientNet-B0", "top1") in conflicts


if __name__ == "__main__":
    write_checksums()
