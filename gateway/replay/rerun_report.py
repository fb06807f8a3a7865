"""A rerun: one logged request on the same version again, and what is not to the bit as it was. Values."""

from typing import Literal

import msgspec

Outcome = Literal["bit-equal", "differs", "unknown"]


class OutputDifference(msgspec.Struct, frozen=True):
    """One output: whether it is to the bit as logged, else how many elements differ and the largest difference.

    `missing` is why the log does not have it, "" where it does.
    """

    name: str
    equal: bool
    differing: int = 0
    elements: int = 0
    largest: float | None = None
    missing: Literal["digest", "redacted", "absent", ""] = ""


class RerunReport(msgspec.Struct, frozen=True):
    """A logged request, run again. `records` is how many the log has with this id: the newest one was taken.

    `equal_in_run_of` is the number of rows of a run in which the answer is to the bit the logged one, where it is not
    in a run of the request's own rows: the gateway merged it with others then. `environment` tells what else is
    otherwise than it was then; `environment_known` whether it was written down.
    Units: microseconds since the Unix epoch.
    """

    model: str
    version: str
    digest: str
    request_id: str
    ts_us: int
    rows: int
    records: int
    outcome: Outcome
    outputs: tuple[OutputDifference, ...]
    equal_in_run_of: int | None = None
    error: str = ""
    runtime: str = ""
    environment_known: bool = False
    environment: tuple[str, ...] = ()
