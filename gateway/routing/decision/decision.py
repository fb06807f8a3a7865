"""The outcome of routing one request."""

from typing import Final

import msgspec

# How the reason begins of a request that another arm served than the one that was decided.
FALLBACK: Final = "FALLBACK:"


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Names the arm and version that serve a request, and why.

    `version` is "" where the newest ready version of the model is meant (no route, no pin). `fallbacks` are the
    (arm, version) pairs to try in order if this one cannot serve, `fallback_on` the reasons that allow it. `bucket` is
    the request's place among the 1 000 000 of the interval table, -1 if it was not asked for one.

    One is made for nearly every request: as a frozen dataclass it costs a microsecond, as this 0.1.
    """

    arm: str
    version: str
    revision: int
    reason: str  # PIN, RULE:<name>, SPLIT, DEFAULT, FALLBACK:<why>, KILL
    bucket: int = -1
    fallbacks: tuple[tuple[str, str], ...] = ()
    fallback_on: frozenset[str] = frozenset()
    mirrors: tuple[tuple[str, str], ...] = ()
