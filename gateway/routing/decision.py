"""The outcome of routing one request, and what routing may look at."""

from typing import Protocol

import msgspec


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Which arm and version serve a request, and why.

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


class Attributes(Protocol):
    """What rules and key sources read of a request; every method is cheap and answers None for what is absent."""

    def metadata(self, name: str) -> str | None: ...

    def parameter(self, name: str) -> str | int | float | bool | None: ...

    def input_value(self, name: str) -> str | None:
        """The first element of the named input tensor as text, if it is a scalar or has one element per row."""

    @property
    def request_id(self) -> str: ...

    @property
    def requested_version(self) -> str: ...
