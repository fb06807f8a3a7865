"""Keeps the quotas of a worker at what their file says, beside the requests.

A file that is broken or gone changes nothing but `trouble`; what was sound is kept for a worker that starts with the
same file meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from gateway.access.entrance import LOOK_S, Watched, kept_path
from gateway.access.quota_rules import QuotaRules, parse_rules
from gateway.access.quotas import Quotas
from gateway.errors import Code, InvalidArgument
from gateway.routing.document.notation import read_yaml
from gateway.threads import started_threads

_log = logging.getLogger(__name__)


def read_rules(text: str) -> QuotaRules:
    """Returns the rules that the file's text says. Raises: InvalidArgument."""
    documents = read_yaml(text)
    if len(documents) > 1:
        raise InvalidArgument(f"the file holds {len(documents)} documents, allowed: one")
    return parse_rules(documents[0] if documents else None, "file")


def watched_rules(kept: Path | None) -> Watched[QuotaRules]:
    """Returns what looks after the file."""
    return Watched("quotas", read_rules, kept)


class QuotaFile:
    """The quotas of a worker, and what keeps them up to date, on a thread of its own: whatever else hangs.

    `kept` is the directory where what was sound is kept.

    Raises: InvalidArgument if the file holds nothing sound, and nothing sound of it was kept.
    """

    def __init__(self, path: Path, *, workers: int, refused: Callable[[Code], None], kept: Path | None = None) -> None:
        self._path = path
        self._watched = watched_rules(kept_path(kept, "quotas", path))
        self._reading = started_threads(1, "quotas")
        self._watched.look(path, first=True)
        self._watched.restore()
        if self._watched.value is None:
            raise InvalidArgument(self._watched.trouble)
        self.quotas = Quotas(self._watched.value, workers=workers, refused=refused)

    @property
    def trouble(self) -> str:
        """What is wrong with what the file says now; "" if nothing is."""
        return self._watched.trouble

    async def follow(self) -> None:
        """Looks at the file, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.step()

    async def step(self) -> bool:
        """Looks once; returns whether other rules are in force now."""
        loop = asyncio.get_running_loop()
        is_new = await loop.run_in_executor(self._reading, self._watched.look, self._path)
        if not is_new or self._watched.value is None:
            return False
        self.quotas.follow(self._watched.value)
        _log.info("quotas were read anew: %d quotas", len(self._watched.value.quotas))
        return True

    def present(self) -> dict[str, object]:
        """Returns the quotas with what of them is used, and what is wrong with the file."""
        return {"quotas": self.quotas.present(), "trouble": self.trouble}

    def status(self) -> dict[str, object]:
        """Returns, for gauges, what is wrong with the file and how many calls each quota counts in flight."""
        return {"trouble": self.trouble, "in_flight": self.quotas.in_use()}
