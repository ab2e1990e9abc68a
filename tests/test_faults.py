"""Some of the faults that `make faults` provokes by the thousand."""

from faults import modules
from faults import weights as files_of_weights


def test_random_trees_of_modules_keep_their_function():
    tally = modules.attempt(400)
    assert tally.tried > 100 and tally.folded > 20
    assert not tally.wrong and not tally.uncaught, tally


def test_damaged_files_of_weights_are_told():
    tally = files_of_weights.attempt(300)
    assert not tally.wrong and not tally.uncaught, tally
