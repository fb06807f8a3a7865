"""A token bucket as a pure value: one number says how full it is at any time.

The bucket is described by `full_at_ns`, the moment at which it is full again if nothing more is taken; in the past: it
is full now. A cost is counted in the time that the bucket needs to make up for it. So there is no refill to run,
nothing drifts, and a bucket that nobody uses costs nothing.

A cost above the whole bucket is taken from a full one, which then owes the rest: on average the rate holds, and a
message that is larger than one second's bytes is not refused for ever.

Source: the generic cell rate algorithm (ITU-T I.371), as a virtual schedule; Envoy's local rate limit is the same
bucket with tokens.
"""


def cost_ns(amount: int, per_second: float) -> int:
    """Returns the time in which a bucket of that rate makes up for the amount."""
    return int(amount * 1e9 / per_second)


def wait_ns(full_at_ns: int, now_ns: int, cost: int, burst: int) -> int:
    """Returns 0 if the bucket has room for the cost now, else after what time it has.

    Units: `cost` and `burst` (how much an idle bucket holds) are nanoseconds of the bucket's rate.
    """
    owed = full_at_ns - now_ns
    if owed <= 0:
        return 0
    return max(0, owed + min(cost, burst) - burst)


def taken(full_at_ns: int, now_ns: int, cost: int) -> int:
    """Returns when the bucket is full again after the cost was taken."""
    return max(full_at_ns, now_ns) + cost


def left(full_at_ns: int, now_ns: int, burst: int) -> float:
    """Returns the share of the bucket that is left, of [0, 1]."""
    return 1.0 if full_at_ns <= now_ns else max(0.0, 1.0 - (full_at_ns - now_ns) / burst)
