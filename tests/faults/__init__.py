"""Faults, provoked at random and by the thousand: `make faults`, or one kind by
`python -m tests.faults.NAME --count N`. Each prints `NAME tried=N wrong=N uncaught=N`, wrong for
what was silently wrong, and ends with 1 where either is not 0."""
