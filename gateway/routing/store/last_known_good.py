"""The snapshot on disk from which a worker starts while the store is away."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from random import random

import msgspec

from gateway.errors import GatewayError
from gateway.routing.decision.snapshot import Route, Snapshot
from gateway.routing.store.store_reply import committed_text

log = logging.getLogger(__name__)

FORMAT = 1
SIZE_LIMIT_BYTES = 256 * 1024 * 1024
RETRY_S = 10.0  # after a disk took nothing: it may have room again, and no further change may come
DEBOUNCE_S = 0.4  # on average: the workers of a host must not all sync their files at once, nor with the next commit


# What reading a file raises that is not what was saved.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, RecursionError, GatewayError)


class _Head(msgspec.Struct):
    """The first line of the file, before its routes."""

    format: int
    epoch: str
    revision: int


def save(path: Path, snapshot: Snapshot) -> None:
    """Replaces the file as a whole: whoever reads it at any moment, or after a crash, finds the old or the new one.

    Raises: OSError.
    """
    routes = [committed_text(compiled.route) for compiled in snapshot.routes.values()]
    head = msgspec.json.encode(_Head(FORMAT, snapshot.epoch, snapshot.revision)).decode()
    body = "\n".join([head, *routes]).encode("utf-8", "surrogatepass")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> Snapshot | None:
    """The snapshot that was saved, or None where there is none. A damaged file is set aside as `<name>.corrupt`."""
    try:
        snapshot = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("last known good routes cannot be read", extra={"path": str(path), "error": str(error)})
        return None
    except _DAMAGED as error:
        log.warning("last known good routes are damaged", extra={"path": str(path), "error": str(error)})
        _set_aside(path)
        return None
    return snapshot


def load_newest(path: Path) -> Snapshot | None:
    """The newest snapshot of the workers of this host: that of `path`, or of one beside it with another number.

    A slot that is new, or was not used for a while, starts by what its siblings serve. Their files are theirs: one that
    is damaged or goes away meanwhile is passed over.
    """
    family = path.name.rstrip("0123456789")
    siblings = [
        one
        for one in path.parent.glob("*")
        if family != path.name and one != path and one.name.startswith(family) and one.name[len(family) :].isdecimal()
    ]
    own = load(path)
    for revision, sibling in sorted(((_revision(one), one) for one in siblings), reverse=True):
        if revision <= (own.revision if own is not None else -1):
            break
        try:
            snapshot = _read(sibling)
        except _DAMAGED:
            continue
        log.info("starts by the routes of a sibling", extra={"path": str(sibling), "revision": revision})
        return snapshot
    return own


class Keeper:
    """Saves the newest snapshot a moment after it changed, off the loop. One writer per path."""

    def __init__(
        self,
        path: Path,
        newest: Callable[[], Snapshot | None],
        *,
        draw: Callable[[], float] = random,
        retry_s: float = RETRY_S,
    ) -> None:
        self._path = path
        self._draw = draw
        self._retry_s = retry_s
        self._newest = newest
        self._changed = asyncio.Event()
        self._saved: tuple[str, int, str] | None = None

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Saves for ever; changes within 200 to 600 ms are saved once."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(DEBOUNCE_S * (0.5 + self._draw()))
            self._changed.clear()
            if not await self.save():
                await asyncio.sleep(self._retry_s)
                self._changed.set()

    async def save(self) -> bool:
        """Saves now what is known and new; returns whether that is on the disk.

        A disk that does not take it costs a warning, not the worker.
        """
        snapshot = self._newest()
        if snapshot is None:
            return True
        mark = (snapshot.epoch, snapshot.revision, snapshot.digest)
        if mark == self._saved:
            return True
        try:
            await asyncio.to_thread(save, self._path, snapshot)
            self._saved = mark
        except OSError as error:
            log.warning("last known good routes were not saved", extra={"path": str(self._path), "error": str(error)})
            return False
        return True


def _revision(path: Path) -> int:
    """The revision that the file's head names, unchecked; -1 where it has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            head = file.read(1024).split(b"\n")[1]
        return msgspec.json.decode(head, type=_Head).revision
    except (*_DAMAGED, IndexError):
        return -1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _set_aside(path: Path) -> None:
    try:
        os.replace(path, path.with_name(f"{path.name}.corrupt"))
    except OSError as error:
        log.warning("a damaged file could not be set aside", extra={"path": str(path), "error": str(error)})


def _read(path: Path) -> Snapshot:
    # Non-blocking, so that a FIFO in its place does not hold up the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > SIZE_LIMIT_BYTES:
            raise ValueError(f"larger than {SIZE_LIMIT_BYTES} bytes")
        digest, _, body = file.read(SIZE_LIMIT_BYTES).partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("the checksum is wrong")
    head_text, *routes = body.decode().split("\n")
    head = msgspec.json.decode(head_text, type=_Head)
    if head.format != FORMAT:
        raise ValueError(f"format {head.format!r}")
    return Snapshot.of(head.epoch, head.revision, map(Route.from_json, routes))
