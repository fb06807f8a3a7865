"""What must hold under load, and how much load that is. Every gate of the load tests is a number of this file."""

from typing import Final

FAILURE_RATIO: Final = 0.0  # an error, a wrong answer and an answer from a version that was not legal are failures
FLIPS: Final = 100
FLIPS_SECONDS: Final = 30
USERS: Final = 16  # each with a connection of its own
CALLS_PER_SECOND: Final = 20.0  # of each user; 0: the next call as soon as the answer is there
DEADLINE_S: Final = 5.0
FLIP_DEADLINE_S: Final = 10.0
SIGMAS: Final = 4.0  # how far a measured share may be from the weight
CANARY_WEIGHT: Final = 0.2
STICKY_WEIGHT: Final = 0.5
STICKY_KEYS: Final = 400
MOVING_KEYS: Final = 4000
# A probability may differ by this from what the same model gave alone: rows that run together are added up in another
# order. Samples whose versions differ by less than DISTINCT cannot tell who answered and are left out.
TOLERANCE: Final = 1e-4
DISTINCT: Final = 1e-2
# Under overload (`python -m loadtests overload`).
OVERLOAD_FACTOR: Final = 5.0
GOODPUT: Final = 0.9  # of the highest
MEMORY_MARGIN: Final = 1.2  # over what the worker held before, and the bytes that it may hold
REFUSAL_S: Final = 0.05
LATE_S: Final = 0.025  # the client's clock starts when it hands the call to its socket, the server's when it reads it
OVERLOAD_CODES: Final = frozenset({"1", "4", "8"})  # CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED
NEIGHBOUR: Final = 1.5  # p99 of a tenant beside another at ten times its quota, over that alone (`tenants`)
