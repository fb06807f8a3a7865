"""Under which name a worker is known to the store and in the log, and how one that has died goes off the list."""

import re
import socket

from gateway.routing.store.acknowledger import Acknowledger
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.worker_status import WorkerStatus
from gateway.runtime.sections import StoreOptions


def worker_id(slot: int, boot: str) -> str:
    """Returns the worker's name. A rolling restart has two in one slot for a while, so the slot alone names nobody."""
    return f"{host_name()}-{slot}-{boot[:8]}"


def host_name() -> str:
    """Returns the host's name, fit to be part of a file name and of a Redis key."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
    return name if name[:1].isalnum() else f"host{name}"


async def deregister(store: StoreOptions, slot: int, boot: str) -> None:
    """Takes a worker that died in this slot off the list of those that changes wait for."""
    dead = worker_id(slot, boot)
    acknowledger = Acknowledger(
        store.redis_url, StoreKeys(store.environment), worker_id=dead, status=lambda: WorkerStatus(dead, "DRAINING")
    )
    try:
        await acknowledger.leave()
    finally:
        await acknowledger.aclose()
