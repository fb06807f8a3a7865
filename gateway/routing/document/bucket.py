"""The buckets that the traffic of a route is counted in."""

from typing import Final

BUCKETS = 1_000_000  # one bucket is 0.0001 %, so that shares are whole numbers
SAMPLED_BUCKET: Final = 8  # one in so many buckets is where keys of a test are counted exactly
