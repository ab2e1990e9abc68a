"""Some of the faults that `make faults` provokes by the thousand."""

from faults import modules


def test_random_trees_of_modules_keep_their_function():
    tally = modules.attempt(400)
    assert tally.tried > 100 and tally.folded > 20
    assert not tally.wrong and not tally.uncaught, tally
