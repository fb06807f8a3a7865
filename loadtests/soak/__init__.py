"""A long run of everything at once, and whether what a process holds grows with its requests."""
