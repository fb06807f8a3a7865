"""Commands that need an optional dependency, and what they say where it is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.cli.exits import Exit, Failure
from gateway.drift.report.analysis_extra import missing_analysis


@contextmanager
def analysis() -> Iterator[None]:
    """Ends the command with what to install where a library of the extra `analysis` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_analysis(error, "this command")
        if not missing:
            raise
        raise Failure(Exit.USAGE, missing) from None
