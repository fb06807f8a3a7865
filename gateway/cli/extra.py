"""Commands that need an optional dependency, and what they say where it is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.cli.exits import Exit, Failure

ANALYSIS = ("duckdb", "scipy")


@contextmanager
def analysis() -> Iterator[None]:
    """Ends the command with what to install where a library of the extra `analysis` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ANALYSIS:
            raise
        raise Failure(
            Exit.USAGE, f"this command needs {name}: pip install 'model-serving-gateway[analysis]' installs it"
        ) from None
