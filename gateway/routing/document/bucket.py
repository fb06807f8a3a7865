"""The buckets that the traffic of a route is counted in."""

BUCKETS = 1_000_000  # one bucket is 0.0001 %, so that shares are whole numbers
