"""Counters of a worker, their sum over workers, and every metric name in one place."""
