"""Routing documents: text to checked, immutable values. Pure."""
