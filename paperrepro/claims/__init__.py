"""The papers' claims beside our own values, and how ours are recomputed."""

from .table import MODES, PAPERS, QUANTITIES, VERDICTS, claims_folder, load_claims, read_rows

__all__ = [
    "MODES",
    "PAPERS",
    "QUANTITIES",
    "VERDICTS",
    "claims_folder",
    "load_claims",
    "read_rows",
]
