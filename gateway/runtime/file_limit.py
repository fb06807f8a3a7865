"""How many files a process may have open: each client connection is one."""

import logging
import resource
import sys
from typing import Final

_MACOS_MOST: Final = 10_240  # OPEN_MAX
_log = logging.getLogger(__name__)


def raise_file_limit() -> None:
    """Allows as many open files as the system lets this user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = highest_limit(soft, hard, sys.platform)
    if soft != wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            _log.warning("the limit of open files stays at %d: %s", soft, error)


def highest_limit(soft: int, hard: int, platform: str) -> int:
    """Returns the highest limit that the platform takes, never below `soft`.

    macOS takes no more than OPEN_MAX, though it says that there is no limit.

    Source: setrlimit(2) of macOS, "Compatibility".
    """
    if platform != "darwin" or 0 <= hard <= _MACOS_MOST:
        return hard
    return soft if soft == resource.RLIM_INFINITY else max(soft, _MACOS_MOST)
