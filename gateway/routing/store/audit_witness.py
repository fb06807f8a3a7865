"""What this worker has seen of the audit trail: the newest entry, kept on its disk, which no later trail may lack.

Who can write into the store can empty the trail or make all of it anew; nobody can tell that from the store alone. So a
worker looks from time to time, and notes the newest entry where it finds the one that it noted before.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import GatewayError
from gateway.routing.store.audit_chain import ChainLink
from gateway.routing.store.audit_trail import Sighting, sight
from gateway.routing.store.redis_store import RedisStore

LOOK_S: Final = 10.0
log = logging.getLogger(__name__)


def next_note(noted: ChainLink, seen: Sighting) -> ChainLink | None:
    """Returns what to note from now on; None if the trail lacks what was noted, and nobody has healed the store since.

    What was noted long ago may no longer be kept; a heal begins a new trail, and says so in its first entry.
    """
    if noted.sequence <= seen.trimmed or seen.at_noted == noted.hash or seen.begun_by_heal:
        return seen.head
    return None


class AuditWitness:
    """The note of one worker. `lost` says that the trail lacks it."""

    def __init__(self, path: Path | None = None) -> None:
        """Without a path it is kept in memory alone. A file that is none is as if there were none."""
        self._path = path
        self.noted = _read(path) if path is not None else ChainLink()
        self.lost = False

    async def look(self, store: RedisStore) -> None:
        """Compares the trail with the note, and notes its newest entry. A store that is away changes nothing."""
        try:
            seen = await sight(store, self.noted.sequence)
        except GatewayError:
            return
        note = next_note(self.noted, seen)
        if note is None:
            if not self.lost:
                log.error(
                    "the audit trail lacks entry %d, which this worker has seen: somebody emptied it or made it anew; "
                    "`gateway audit verify` says what is there",
                    self.noted.sequence,
                )
            self.lost = True
            return
        self.lost = False
        if note != self.noted:
            self.noted = note
            if self._path is not None:
                await asyncio.to_thread(_write, self._path, note)

    async def follow(self, store: RedisStore) -> None:
        """Looks for ever."""
        while True:
            await self.look(store)
            await asyncio.sleep(LOOK_S)


def _read(path: Path) -> ChainLink:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ChainLink)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return ChainLink()


def _write(path: Path, note: ChainLink) -> None:
    staged = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(msgspec.json.encode(note))
        os.replace(staged, path)
    except OSError as error:
        log.warning("the newest entry of the audit trail was not noted: %s", error.strerror)
