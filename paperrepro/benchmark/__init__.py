"""Measuring instruments: sizes, operators, latency."""
