"""The entrance of a process of this gateway, as its configuration asks for it."""

import time

from gateway.access.entrance import Entrance
from gateway.runtime.config import Config


def make_entrance(config: Config) -> Entrance | None:
    """Returns what callers have to pass; None where nobody has to prove anything.

    Where certificates alone are asked for, whoever shows one may do everything, in the name that it proves.

    Raises: InvalidArgument if a file holds nothing sound, and never did while this data directory was in use.
    """
    if not (config.access.configured or config.tls.mutual):
        return None
    return Entrance(config.access.files, wall_s=time.time, monotonic_s=time.monotonic, kept=config.access_dir)
