"""Ablations: which settings are trained, their runs, one table."""
