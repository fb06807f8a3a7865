"""What keeps calls out of a worker that knows no rules."""

import asyncio
import logging
from typing import Final

from gateway.routing.store.feed import Feed
from gateway.serving.admission import Admission

_NO_RULES: Final = (
    "no routing rules could be read yet, neither from the store nor from disk, so nobody knows which version may "
    "answer; the gateway's log says why"
)
_log = logging.getLogger(__name__)


class RulesGate:
    """Closes the admission until the feed knows rules, unless `optional` says that the newest versions may answer."""

    def __init__(self, admission: Admission, feed: Feed, *, optional: bool) -> None:
        self._admission = admission
        self._feed = feed
        self._optional = optional

    def close_without_rules(self) -> None:
        """Order: after the feed has asked the store and the disk, before the first call."""
        if not self._feed.rules_known and not self._optional:
            self._admission.close(_NO_RULES)

    async def passed(self, stopping: asyncio.Event) -> bool:
        """Returns True once calls may come, False if the worker is to stop before."""
        if self._admission.is_open:
            if not self._feed.rules_known:
                _log.warning("--start-without-rules: the newest versions answer until the rules can be read")
            return True
        _log.error("not ready: %s (%s)", _NO_RULES, self._feed.error)
        waits = [asyncio.ensure_future(self._feed.known()), asyncio.ensure_future(stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._feed.rules_known:
            return False
        await self._feed.prepared()
        self._admission.open()
        return True
