"""The papers' claims beside our own values, and how ours are recomputed."""

from .table import (
    LADDER,
    MODES,
    PAPERS,
    QUANTITIES,
    claims_folder,
    load_claims,
    read_rows,
)

__all__ = [
    "LADDER",
    "MODES",
    "PAPERS",
    "QUANTITIES",
    "claims_folder",
    "load_claims",
    "read_rows",
]
