"""What this worker has seen of the audit trail: the newest entry, kept on its disk, which no later trail may lack.

Who can write into the store can empty the trail or make all of it anew; nobody can tell that from the store alone. So a
worker looks from time to time, and notes the newest entry where it finds the one that it noted before. A heal declares
right what the store holds, be it that somebody emptied it, or that a failover lost the newest entries: where the trail
has one that the worker had not seen, it follows. One heal excuses nothing that is lost after it.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import GatewayError, StoreDamaged
from gateway.routing.store.audit_chain import ChainLink
from gateway.routing.store.audit_trail import Sighting, sight
from gateway.routing.store.redis_store import RedisStore

LOOK_S: Final = 10.0
log = logging.getLogger(__name__)


class Note(msgspec.Struct, frozen=True):
    """The newest entry that was seen, and the hash of the newest heal among those before it, "" where none was."""

    sequence: int = 0
    hash: str = ""
    healed: str = ""

    @property
    def link(self) -> ChainLink:
        return ChainLink(self.sequence, self.hash)


def next_note(noted: Note, seen: Sighting) -> Note | None:
    """Returns what to note from now on; None if the trail lacks what was noted, and nobody has healed the store since.

    What was noted long ago may no longer be kept.
    """
    is_there = noted.sequence <= seen.trimmed or seen.at_noted == noted.hash
    if is_there or seen.healed not in ("", noted.healed):
        return Note(seen.head.sequence, seen.head.hash, seen.healed or noted.healed)
    return None


class AuditWitness:
    """The note of one worker. `lost` says that the trail lacks it."""

    def __init__(self, path: Path | None = None) -> None:
        """Without a path it is kept in memory alone. A file that is none is as if there were none."""
        self._path = path
        self._note = _read(path) if path is not None else Note()
        self.lost = False

    @property
    def noted(self) -> ChainLink:
        return self._note.link

    async def look(self, store: RedisStore) -> None:
        """Compares the trail with the note, and notes its newest entry. A store that is away changes nothing."""
        try:
            seen = await sight(store, self.noted.sequence)
        except StoreDamaged as error:
            self._miss(f"cannot be read: {error}")
            return
        except GatewayError:
            return
        note = next_note(self._note, seen)
        if note is None:
            self._miss(
                f"lacks entry {self.noted.sequence}, which this worker has seen: somebody emptied it or made it anew, "
                "or a failover lost it; `gateway audit verify` says what is there"
            )
            return
        self.lost = False
        if note != self._note:
            self._note = note
            if self._path is not None:
                await asyncio.to_thread(_write, self._path, note)

    def _miss(self, what: str) -> None:
        if not self.lost:
            log.error("the audit trail %s", what)
        self.lost = True

    async def follow(self, store: RedisStore) -> None:
        """Looks for ever."""
        while True:
            await self.look(store)
            await asyncio.sleep(LOOK_S)


def _read(path: Path) -> Note:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Note()


def _write(path: Path, note: Note) -> None:
    staged = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(msgspec.json.encode(note))
        os.replace(staged, path)
    except OSError as error:
        log.warning("the newest entry of the audit trail was not noted: %s", error.strerror)
