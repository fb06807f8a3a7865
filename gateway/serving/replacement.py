"""A served version whose files were overwritten: recorded before the new content takes its place."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gateway.backoff import Backoff
from gateway.errors import GatewayError
from gateway.serving.version import Version

logger = logging.getLogger(__name__)

_RETRY: Final = Backoff(1.0, 30.0)


@dataclass(frozen=True, slots=True)
class Replacement:
    """Content that takes the place of what a version serves; `fingerprint` names this one overwriting of its files."""

    model: str
    version: str
    previous_digest: str
    digest: str
    fingerprint: str


RecordReplacement = Callable[[Replacement], Awaitable[None]]


async def recorded(replacement: Replacement, record: RecordReplacement, serving: Version) -> None:
    """Returns once the replacement is recorded; until then what serves goes on, and its reason says why."""
    failures = 0
    while True:
        try:
            await record(replacement)
        except GatewayError as error:
            failures += 1
            serving.reason = (
                f"newer files wait, because their replacement cannot be recorded in the audit trail: {error}"
            )
            if failures == 1:
                logger.warning(
                    "not replaced yet: model=%s version=%s %s", replacement.model, replacement.version, serving.reason
                )
        else:
            serving.reason = "" if failures else serving.reason
            return
        await asyncio.sleep(_RETRY.delay_s(failures))
