"""Runs the checks of the exercises on the solutions' answers and on wrong ones."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest

SOLUTIONS = Path(__file__).parents[1] / "book" / "solutions"
PREPARE = {
    "dense-prediction": ("imports",),
    "deployment": ("setup", "memory-meter"),
    "export-to-iphone": ("setup", "trace"),
}

Answers = Mapping[str, object]
Exercise = tuple[str, int]
UNTRIED = {
    ("mobileone", 6),  # has a test of its own
    ("training", 5),  # needs runs of the chapter, as the next
    ("training", 6),
    ("export-to-iphone", 4),  # executes a package of the chapter, as the next
    ("export-to-iphone", 5),
}


@cache
def cells(chapter):
    notebook = nbformat.read(SOLUTIONS / f"{chapter}.ipynb", as_version=4)
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}


@cache
def solved(chapter, number):
    """The names that the check of an exercise finds, with the solution's answers."""
    names = {}
    for cell in ("bootstrap", *PREPARE.get(chapter, ()), f"answer-{number}"):
        exec(re.sub(r"^(\s*)%pip.*", r"\1pass", cells(chapter)[cell], flags=re.M), names)
    return names


def run_check(chapter, number, **answers):
    exec(cells(chapter)[f"check-{number}"], {**solved(chapter, number), **answers})


def make_tests(
    wrong: Mapping[Exercise, list[Answers | tuple[Answers, str]]],
) -> tuple[Callable[..., None], ...]:
    """Three tests: solutions pass, wrong answers fail with a reason, and no check goes untried.

    A wrong answer is the names that it binds, or these and a pattern that the reason matches.
    """

    @pytest.mark.parametrize(("chapter", "number"), list(wrong))
    def right_answers_pass(chapter, number, capsys):
        run_check(chapter, number)
        assert "correct" in capsys.readouterr().out

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize(
        ("chapter", "number", "answers", "why"),
        [
            (*exercise, *(answers if isinstance(answers, tuple) else (answers, r"\w")))
            for exercise, several in wrong.items()
            for answers in several
        ],
    )
    def wrong_answers_fail_and_say_why(chapter, number, answers, why):
        with np.errstate(all="ignore"), pytest.raises(AssertionError, match=why):
            run_check(chapter, number, **answers)

    def every_check_is_tried():
        chapters = {chapter for chapter, _ in wrong}
        checks = [(c, id) for c in chapters for id in cells(c) if id.startswith("check-")]
        assert {(c, int(id[6:])) for c, id in checks} - UNTRIED == set(wrong)

    return right_answers_pass, wrong_answers_fail_and_say_why, every_check_is_tried
