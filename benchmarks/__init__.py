"""Measurements: models, speed, quality, solvers. Run from the repository's root."""
