"""What the load tests can be told beside locust's own options."""

import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, Final

from loadtests import budgets

# Made once for each user: a load test writes nothing where it is run.
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-serving-gateway" / "demo"


def add_options(parser: Any) -> None:
    """Adds them to a parser: locust's or that of `python -m loadtests`."""
    parser.add_argument("--model", default="digits", help="Model with the versions 1 and 2 [default: digits].")
    parser.add_argument(
        "--samples",
        type=Path,
        default=CACHE / "samples",
        help="Directory with <model>.npz, as `python -m gateway.demo DIR --samples DIR` writes it; else a cache.",
    )
    parser.add_argument(
        "--calls-per-second",
        type=_not_negative,
        default=budgets.CALLS_PER_SECOND,
        help="Of each user; 0: the next call as soon as the answer is there.",
    )
    parser.add_argument("--flips", type=int, default=0, help="At least so many flips must have been done.")
    parser.add_argument("--flip-every", type=_not_negative, default=0.25, help="Seconds from flip to flip.")


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text} is not a number from 0")
    return value
