"""Drift and performance as the compactor sees the rows."""
