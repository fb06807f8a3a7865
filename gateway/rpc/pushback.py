"""Refusals that say when to come again: later, because others hold what the call needs, or never."""

from random import random

from gateway.backoff import retry_after_ms
from gateway.errors import ResourceExhausted


def later(text: str) -> ResourceExhausted:
    """Returns the refusal of a call that may have room in a moment."""
    return ResourceExhausted(text, retry_after_ms=retry_after_ms(random()))


def never(text: str) -> ResourceExhausted:
    """Returns the refusal of a call that is beyond a limit of its own: it would be refused again."""
    return ResourceExhausted(text, retry_after_ms=-1)
