"""The scorecard's HTML: every claim with its verdict, drawings to scale, nothing unescaped."""

import re
from html.parser import HTMLParser

import pytest

from paperrepro.claims import LADDER, PAPERS, load_claims
from paperrepro.claims import scorecard as card
from paperrepro.claims.headlines import headlines
from paperrepro.claims.judged import judged_claims
from paperrepro.claims.outcomes import load_outcomes


class Cells(HTMLParser):
    """The texts of each row's cells; every tag must be closed."""

    VOID = ("input",)

    def __init__(self, text):
        super().__init__()
        self.open, self.rows = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.rows and self.rows[-1] and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_every_headline_has_its_verdict():
    rows = [row for row in Cells(card.headline_table()).rows if len(row) == 4][1:]
    table = headlines()
    shown = {row[1] for row in rows}
    assert len(rows) == len(table)
    for one in table.itertuples():
        [row] = [row for row in rows if row[1].startswith(one.statement)]
        assert row[0] == one.verdict
    for paper in PAPERS:
        few = [row for row in Cells(card.headline_table(paper)).rows if len(row) == 4][1:]
        assert len(few) == (table["paper"] == paper).sum() and {row[1] for row in few} <= shown


def test_every_claim_has_its_verdict():
    rows = Cells(card.claims_table()).rows[1:]
    judged = judged_claims()
    assert [row[0] for row in rows] == list(judged["verdict"])
    answered = ~judged["verdict"].isin(["not tested", "quoted"]) | judged["others_how"].notna()
    assert [bool(row[4]) for row in rows] == list(answered), "a word without what it rests on"
    assert [row[3].split(" ")[0] for row in rows[:50]] == [
        str(value) for value in load_claims()["paper_value"][:50]
    ]


def test_ladder_counts_every_claim():
    rows = Cells(card.ladder_table()).rows[1:]
    assert [row[0] for row in rows] == list(LADDER)
    assert sum(int(row[2]) for row in rows) == len(load_claims())


def test_a_ratio_is_drawn_on_a_logarithmic_axis():
    at = card.places({"kind": "ratio", "paper": 4, "ours": 2, "low": 1, "high": 0.25})
    middle, end = card.WIDTH / 2, card.WIDTH - 7
    assert at == {"paper": end, "ours": (middle + end) / 2, "low": middle, "high": 7}


def test_a_difference_is_drawn_around_zero():
    at = card.places({"kind": "difference", "paper": 1, "ours": -2, "low": -4, "high": 0})
    assert at["high"] == card.WIDTH / 2 and at["low"] == 7
    assert at["low"] < at["ours"] < at["high"] < at["paper"]


@pytest.mark.parametrize("row", load_outcomes().to_dict("records"), ids=lambda row: row["id"])
def test_drawings_stay_inside_and_say_the_verdict(row):
    at = card.places(row)
    assert all(0 < place < card.WIDTH for place in at.values())
    assert at["low"] <= at["ours"] <= at["high"]
    crosses = at["low"] < card.WIDTH / 2 < at["high"]
    assert crosses == (row["verdict"] == "inconclusive") or row["paper"] in (0, 1)


def test_texts_are_escaped(monkeypatch):
    table = headlines().head(1).assign(statement="<script>alert(1)</script>", section='x" onload="')
    monkeypatch.setattr(card, "headlines", lambda: table)
    text = card.headline_table("mobileone")
    assert "<script" not in text and '" onload' not in text


def test_letters_on_badges_can_be_read():
    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    assert set(card.COLORS) == set(LADDER) and set(card.TITLES) == set(PAPERS)
    for word in LADDER:
        back, front = re.findall(r"#[0-9a-f]{6}", card.badge(word))
        dark, light = sorted((luminance(back), luminance(front)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5
