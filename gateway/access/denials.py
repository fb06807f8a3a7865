"""Refused callers, counted by why; at most a line in the log for each reason and span of time."""

import logging
from collections import Counter
from enum import StrEnum
from typing import Final

LOG_EVERY_S: Final = 10.0
_log = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why a caller was refused."""

    NO_CREDENTIAL = "no_credential"
    CREDENTIAL = "credential"
    SIGNING_KEY = "signing_key"
    ROLE = "role"
    MODEL = "model"


class Denials:
    """Counts since the start. `last` says of the newest one who it was and what it called, for people."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(Reason, 0))
        self.last: dict[str, str] = {}
        self._logged: Counter[str] = Counter()
        self._shown: dict[str, str] = {}

    def note(self, reason: Reason, who: str, what: str) -> None:
        self.counts[reason] += 1
        self.last[reason] = f"{who or 'nobody'} called {what}"

    def told(self) -> dict[str, dict[str, object]]:
        """Returns the counts as of the last `tell`, each with its newest caller; reasons that never were are left out.

        They change as often as somebody tells, however many callers are refused.
        """
        return {reason: {"count": self._logged[reason], "last": last} for reason, last in self._shown.items()}

    def tell(self) -> None:
        """Writes a line for each reason that there was since the last time; who calls this bounds how often."""
        for reason in Reason:
            more = self.counts[reason] - self._logged[reason]
            if more:
                _log.warning("%d callers were refused (%s); the last: %s", more, reason, self.last[reason])
                self._logged[reason] = self.counts[reason]
                self._shown[reason] = self.last[reason]
