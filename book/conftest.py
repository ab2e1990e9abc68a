"""While nbval runs the book: a notebook that costs half as much again as its card says fails."""

import csv
from functools import cache

import pytest
from execute import COSTS, excess, name_of, reference_seconds, used

reference_seconds = cache(reference_seconds)


@cache
def cards():
    with COSTS.open(newline="") as file:
        return {row["notebook"]: row for row in csv.DictReader(file)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Look at the kernel after each cell; judge after the last one."""
    notebook = item.parent
    memory, cpu = used(notebook.kernel.km.provisioner.pid)
    notebook.peak = max(memory, getattr(notebook, "peak", 0))
    yield
    if nextitem is None or nextitem.parent is not notebook:
        name = name_of(item.path)
        card = cards().get(name, {})
        if not card.get("cpu_seconds"):
            pytest.fail(
                f"what {name} costs is not recorded: run 'make notebooks'"
            )
        if found := excess(notebook.peak, cpu, reference_seconds(), card):
            pytest.fail(
                f"{name} takes {found}: make it cheaper, or run 'make notebooks' "
                "and tell the reader so on its card"
            )
