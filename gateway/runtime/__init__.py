"""Processes: configuration, supervisor, worker wiring, and what they say to each other."""
