"""What callers meet in a process of this gateway, as its configuration asks for it: an entrance, and quotas."""

import time
from collections.abc import Callable

from gateway.access.entrance import Entrance
from gateway.access.quota_file import QuotaFile
from gateway.errors import Code
from gateway.runtime.config import Config


def make_entrance(config: Config) -> Entrance | None:
    """Returns what callers have to pass; None where nobody has to prove anything.

    Where certificates alone are asked for, whoever shows one may do everything, in the name that it proves.

    Raises: InvalidArgument if a file holds nothing sound, and never did while this data directory was in use.
    """
    if not (config.access.configured or config.tls.mutual):
        return None
    return Entrance(config.access.files, wall_s=time.time, monotonic_s=time.monotonic, kept=config.access_dir)


def make_quota_file(config: Config, refused: Callable[[Code], None]) -> QuotaFile | None:
    """Returns a worker's quotas; None where everybody may do as much as he likes. `refused` counts what they refuse.

    Raises: InvalidArgument if the file holds nothing sound, and nothing sound of it was kept.
    """
    path = config.limits.quotas
    if path is None:
        return None
    return QuotaFile(path, workers=config.process.workers, refused=refused, kept=config.state_dir)
