"""The scorecard's tables as HTML: a word of the ladder as a badge, an interval as a small drawing.

    >>> from IPython.display import HTML
    >>> HTML(headline_table())

Each function returns one piece of HTML, every text of which is escaped; `book/_static/claims.css`
gives it its look in the book.
"""

import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import svg

from .headlines import headlines
from .judged import judged_claims
from .outcomes import load_outcomes
from .table import LADDER, load_claims
from .third_party import HOW

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "mobileone": "MobileOne",
    "fasternet": "FasterNet",
    "replknet": "RepLKNet",
    "mobilevigv2": "MobileViGv2",
    "rapidnet": "RapidNet",
}

COLORS = {
    "proved": "#00553f",
    "recomputed": "#007a5a",
    "seen here": "#0b5d9e",
    "order holds": "#7fbce6",
    "inconclusive": "#c9c9c9",
    "opposite here": "#b34700",
    "differs": "#e6a23c",
    "not tested": "#ececec",
    "quoted": "#ffffff",
}
"""Of each word of `LADDER`."""

DARK = ("proved", "recomputed", "seen here", "opposite here")
"""The words whose colour carries white letters."""

Row = Mapping[Any, Any]

WIDTH, HEIGHT = 150, 22
NUMBER = {"difference": "{:+.1f}", "ratio": "{:.2f}×", "correlation": "{:.2f}"}


def badge(verdict: str) -> str:
    """A word of the ladder on its colour; its meaning appears under the pointer."""
    meaning = escape(LADDER[verdict], quote=True)
    letters = "#ffffff" if verdict in DARK else "#1b1b1b"
    look = f"background:{COLORS[verdict]};color:{letters}"
    return f'<span class="verdict" style="{look}" title="{meaning}">{verdict}</span>'


def number(value: float, kind: str, unit: str = "") -> str:
    """A value of an outcome for a reader: +1.8 points, 3.10×, 0.45."""
    shown = NUMBER[kind].format(value).replace("-", "−")
    return shown if kind != "difference" else f"{shown} {unit}".strip()


def interval(outcome: Row) -> str:
    """Draws an outcome: our value with its interval, the paper's as a ring, no effect as a line.

    Ratios stand on a logarithmic axis around 1, differences around 0, correlations from -1 to 1.
    """
    at = places(outcome)
    middle = HEIGHT / 2
    drawn: list[svg.Element] = [
        svg.Line(x1=WIDTH / 2, x2=WIDTH / 2, y1=1, y2=HEIGHT - 1, stroke_dasharray=[2, 2]),
        svg.Line(x1=at["low"], x2=at["high"], y1=middle, y2=middle, stroke_width=3, opacity=0.55),
        svg.Circle(cx=at["paper"], cy=middle, r=5.5, fill="none", stroke="#d55e00", stroke_width=2),
        svg.Circle(cx=at["ours"], cy=middle, r=3, fill="currentColor"),
    ]
    picture = svg.SVG(
        viewBox=svg.ViewBoxSpec(0, 0, WIDTH, HEIGHT),
        width=WIDTH,
        height=HEIGHT,
        class_=["interval"],
        extra={"role": "img", "aria-label": escape(in_words(outcome), quote=True)},
        elements=[svg.G(stroke="currentColor", elements=drawn)],
    )
    return picture.as_str()


def places(outcome: Row) -> dict[str, float]:
    """Where the paper's value, ours and the ends of its interval stand, in pixels from the left."""
    names = ("paper", "ours", "low", "high")
    values = {name: float(outcome[name]) for name in names}
    if outcome["kind"] == "ratio":
        values = {name: math.log(value) for name, value in values.items()}
    widest = 1.0 if outcome["kind"] == "correlation" else max(map(abs, values.values()))
    half = WIDTH / 2
    return {name: round(half + (half - 7) * value / widest, 1) for name, value in values.items()}


def in_words(outcome: Row) -> str:
    kind, unit = str(outcome["kind"]), str(outcome["unit"])
    paper, ours, low, high = (
        number(float(outcome[name]), kind, unit) for name in ("paper", "ours", "low", "high")
    )
    return f"ours {ours}, from {low} to {high}; the paper's {paper}"


def rests_on(outcome: Row) -> str:
    """What an outcome rests on, and what it could have seen if it saw nothing."""
    told = str(outcome["n"])
    if outcome["verdict"] == "inconclusive":
        visible = number(float(outcome["visible"]), str(outcome["kind"]), str(outcome["unit"]))
        told += f"; {visible.lstrip('+')} would have been seen"
    return told


def headline_counts() -> str:
    """How many of the claims that matter have which verdict."""
    counts = headlines()["verdict"].value_counts()
    told = "".join(
        f'<span class="count">{badge(word)} {counts[word]}</span> '
        for word in LADDER
        if word in counts
    )
    return f'<p class="scorecard pr-figure">{told}</p>'


def headline_table(paper: str | None = None) -> str:
    """The claims that matter: verdict, claim, the paper's number, ours, its interval.

    Args:
        paper: of one paper alone.
    """
    table = headlines()
    of_outcome = load_outcomes().set_index("id", drop=False).to_dict("index")
    of_claim = load_claims().set_index("id", drop=False).to_dict("index")
    bodies = []
    for name in [paper] if paper else TITLES:
        rows = table[table["paper"] == name].to_dict("records")
        head = f'<tr><th colspan="4" scope="rowgroup">{TITLES[str(name)]}</th></tr>'
        lines = (headline_row(row, of_outcome, of_claim) for row in rows)
        bodies.append(f"<tbody>{'' if paper else head}{''.join(lines)}</tbody>")
    head = "<th>verdict</th><th>claim</th><th>paper’s</th><th>ours</th>"
    return wrapped(f'<table class="headlines"><thead><tr>{head}</tr></thead>{"".join(bodies)}')


def headline_row(
    row: Row,
    of_outcome: Mapping[Any, Row],
    of_claim: Mapping[Any, Row],
) -> str:
    page, _, section = str(row["section"]).partition("#")
    link = f"{page}.html#{section}" if section else f"{page}.html"
    if row["by"] in of_outcome:
        outcome = of_outcome[row["by"]]
        kind, unit = str(outcome["kind"]), str(outcome["unit"])
        theirs = number(float(outcome["paper"]), kind, unit)
        ours = number(float(outcome["ours"]), kind, unit) + interval(outcome)
        basis = f"{outcome['statement']}: {rests_on(outcome)}"
    elif row["by"]:
        claims = [of_claim[name] for name in row["claims"]]
        theirs = ", ".join(with_unit(one, "paper_value") for one in claims[:2])
        ours = ", ".join(filter(None, (with_unit(one, "ours") for one in claims[:2]))) or "–"
        if len(claims) > 2:
            same = sum(one["verdict"] == "agrees" for one in claims)
            theirs, ours = f"{len(claims)} counts", f"{same} of them equal"
        basis = str(of_claim[row["by"]]["how"])
    else:
        theirs, ours, basis = "", "holds for every input", str(row["proof"]).split("::")[0]
    return (
        f"<tr><td>{badge(str(row['verdict']))}</td>"
        f'<td><a href="{escape(link, quote=True)}">{escape(str(row["statement"]))}</a>'
        f"<small>{escape(basis)}</small></td>"
        f"<td>{escape(theirs)}</td><td>{ours if '<svg' in ours else escape(ours)}</td></tr>"
    )


def with_unit(claim: Row, column: str) -> str:
    value = claim[column]
    return "" if value is None else f"{value} {claim['unit']}".strip()


def ladder_table() -> str:
    """The words, what each means, and how many claims stand there."""
    counts = judged_claims()["verdict"].value_counts()
    rows = "".join(
        f"<tr><td>{badge(word)}</td><td>{escape(meaning)}</td><td>{counts.get(word, 0)}</td></tr>"
        for word, meaning in LADDER.items()
    )
    head = "<th>verdict</th><th>meaning</th><th>claims</th>"
    return wrapped(f'<table class="ladder"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>')


def reason_table(why: str, rows: "pd.DataFrame") -> str:
    """Rows of `all_claims` whose counts differ for one reason, which stands above them."""
    lines = "".join(
        f"<tr><td>{TITLES[row['paper']]}, {escape(row['item'])}</td>"
        f"<td>{escape(row['subject'])}: {escape(row['quantity'])}</td>"
        f"<td>{escape(with_unit(row, 'paper_value'))}</td>"
        f"<td>{escape(with_unit(row, 'ours'))}</td></tr>"
        for row in rows.to_dict("records")
    )
    head = "<th>where</th><th>claim</th><th>paper’s</th><th>ours</th>"
    told = f"<p>{escape(why[0].upper() + why[1:])}.</p>"
    return told + wrapped(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody>")


def needs_table(rows: "pd.DataFrame") -> str:
    """Rows of `all_claims` that nothing answers, counted by paper and by what would answer them."""
    counts = rows.groupby(["paper", "quantity", "how"], sort=False).size().reset_index(name="rows")
    lines = "".join(
        f"<tr><td>{TITLES[row['paper']]}</td><td>{escape(row['quantity'])}</td>"
        f"<td>{row['rows']}</td><td>{escape(row['how'])}</td></tr>"
        for row in counts.to_dict("records")
    )
    head = "<th>paper</th><th>quantity</th><th>claims</th><th>what it needs</th>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="claims-scroll" tabindex="0">{wrapped(table)}</div>'


def all_claims() -> "pd.DataFrame":
    """Every row of the claims, with `step`, its word of the ladder, and `told`, what we have.

    `told` is our count, or an outcome: its statement, value, interval and what could have been
    seen; empty where nothing was run.
    """
    judged = judged_claims()
    told = [what_we_have(row) for row in judged.to_dict("records")]
    return load_claims().assign(step=judged["verdict"], told=told)


def what_we_have(judged: Row) -> str:
    """Of a row of `judged_claims`, our count, its outcome or what others found, in words; empty
    without any."""
    kind = judged["outcome_kind"]
    if isinstance(judged["others_how"], str):
        return f"others: {judged['others_top1']} % ({HOW[judged['others_how']]})"
    if not isinstance(kind, str):
        return with_unit(judged, "ours") + plainly(judged)
    outcome = {str(name).removeprefix("outcome_"): value for name, value in judged.items()}
    if kind == "count":
        return f"{outcome['ours']:g} {outcome['unit']} ({outcome['statement']})"
    return f"{outcome['statement']}: {in_words(outcome)}; {rests_on(outcome)}"


def plainly(judged: Row) -> str:
    """Of a parameter count by the paper's rule, the rule and the plain count; else empty."""
    training, fused = judged["plain_params"], judged["plain_params_fused"]
    if not isinstance(training, int):
        return ""
    rule = str(judged["how"]).partition(": ")[2]
    return f" ({rule}); plainly {training / 1e6:.3f} M in training, {fused / 1e6:.3f} M merged"


def claims_table() -> str:
    """Every claim, to be filtered by paper, verdict and words; without scripts all are shown."""
    table = all_claims()
    body = "".join(claim_rows(table))
    head = "<th>verdict</th><th>where</th><th>claim</th><th>paper’s</th><th>ours</th>"
    menus = menu("paper", [TITLES[name] for name in TITLES]) + menu("verdict", list(LADDER))
    search = '<label>containing <input type="search" size="14"></label> <output></output>'
    inner = f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    scroll = f'<div class="claims-scroll" tabindex="0">{inner}</div>'
    return f'<div class="claims-filter pr-figure"><p>{menus}{search}</p>{scroll}{SCRIPT}</div>'


def claim_rows(table: "pd.DataFrame") -> Iterator[str]:
    for claim in table.to_dict("records"):
        why = f"<small>{escape(str(claim['why']))}</small>" if claim["why"] else ""
        paper = TITLES[claim["paper"]]
        yield (
            f'<tr data-paper="{paper}" data-verdict="{claim["step"]}">'
            f"<td>{badge(str(claim['step']))}</td>"
            f"<td>{paper}, {escape(str(claim['item']))}</td>"
            f"<td>{escape(str(claim['subject']))}: {escape(str(claim['quantity']))}{why}</td>"
            f"<td>{escape(with_unit(claim, 'paper_value'))}</td>"
            f"<td>{escape(str(claim['told']))}</td></tr>"
        )


def menu(name: str, values: list[str]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return (
        f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select>'
        "</label> "
    )


def wrapped(table: str) -> str:
    return f'<div class="scorecard pr-figure">{table}</table></div>'


SCRIPT = """
<script>
(() => {
  const box = document.currentScript.parentElement;
  const controls = box.querySelectorAll("select, input");
  const update = () => {
    let shown = 0;
    for (const row of box.querySelectorAll("tbody tr")) {
      const keep = [...controls].every(c => !c.value || (c.tagName === "SELECT"
        ? row.dataset[c.name] === c.value
        : row.textContent.toLowerCase().includes(c.value.toLowerCase())));
      row.hidden = !keep;
      shown += keep;
    }
    box.querySelector("output").textContent = shown + " claims";
  };
  controls.forEach(c => c.addEventListener("input", update));
  update();
})();
</script>"""
