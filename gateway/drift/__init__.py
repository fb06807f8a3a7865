"""Drift: what a version saw and answered, against what it was built from."""
