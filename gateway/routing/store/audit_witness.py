"""What this worker has seen of the audit trail: the newest entry, kept on its disk, which no later trail may lack.

Who can write into the store can empty the trail or make all of it anew; nobody can tell that from the store alone. So a
worker looks from time to time, and notes the newest entry where it finds the one that it noted before. A heal declares
right what the store holds, be it that somebody emptied it, or that a failover lost the newest entries: where the trail
has one that is later than each that the worker had seen, it follows, and says so in its log. One heal excuses nothing
that is lost after it, and neither does an older one that somebody put back.
"""

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import GatewayError, StoreDamaged
from gateway.routing.store.audit_chain import AuditEntry, ChainLink, cut_off
from gateway.routing.store.audit_trail import Sighting, sight
from gateway.routing.store.redis_store import RedisStore

LOOK_S: Final = 10.0
log = logging.getLogger(__name__)


class Note(msgspec.Struct, frozen=True):
    """The newest entry that was seen, and hash and time of the newest heal that was, "" and 0 where none was.

    Releases before noted no time, 0 is there for it.
    """

    sequence: int = 0
    hash: str = ""
    healed: str = ""
    healed_at_us: int = 0

    @property
    def link(self) -> ChainLink:
        return ChainLink(self.sequence, self.hash)

    def newer_heal(self, seen: Sighting) -> AuditEntry | None:
        """Returns the heal that this note had not seen."""
        heal = seen.heal
        if heal is None or heal.hash == self.healed or heal.at_us <= self.healed_at_us:
            return None
        return heal


@dataclass(frozen=True, slots=True)
class Compared:
    """What to note from now on, None if the trail lacks what was noted and no heal explains it; and the heal that does
    where what was noted is gone."""

    note: Note | None
    excuse: AuditEntry | None = None


def compared(noted: Note, seen: Sighting) -> Compared:
    """Returns what follows from a look. What was noted long ago may be dropped, if as many follow as are kept."""
    heal = noted.newer_heal(seen)
    is_dropped = noted.sequence <= seen.trimmed.sequence and not cut_off(seen.trimmed, seen.head)
    is_there = is_dropped or seen.at_noted == noted.hash
    if heal is None and not is_there:
        return Compared(None)
    healed, healed_at_us = (noted.healed, noted.healed_at_us) if heal is None else (heal.hash, heal.at_us)
    if seen.heal is not None and seen.heal.hash == healed:
        healed_at_us = seen.heal.at_us  # which a note of a release before has not
    note = Note(seen.head.sequence, seen.head.hash, healed, healed_at_us)
    return Compared(note, None if is_there else heal)


class AuditWitness:
    """The note of one worker. `lost` says that the trail lacks it, or cannot be read."""

    def __init__(self, path: Path | None = None) -> None:
        """Without a path it is kept in memory alone. A file that is none is as if there were none."""
        self._path = path
        self._note = _read(path) if path is not None else Note()
        self._missing = ""
        self._looking = asyncio.Lock()

    @property
    def noted(self) -> ChainLink:
        return self._note.link

    @property
    def lost(self) -> bool:
        return self._missing != ""

    async def look(self, store: RedisStore) -> None:
        """Compares the trail with the note, and notes its newest entry. A store that is away changes nothing."""
        async with self._looking:  # another look would compare what this one saw with a newer note
            await self._look(store)

    async def _look(self, store: RedisStore) -> None:
        noted = self._note
        try:
            seen = await sight(store, noted.sequence)
        except StoreDamaged as error:
            self._miss(f"cannot be read: {error}")
            return
        except GatewayError:
            return
        result = compared(noted, seen)
        if result.note is None:
            self._miss(
                f"lacks entry {noted.sequence}, which this worker has seen: somebody emptied it or made it anew, "
                "or a failover lost it; `gateway audit verify` says what is there"
            )
            return
        if result.excuse is not None:
            log.warning(
                "the audit trail lacks entry %d (%s), which this worker has seen: heal %d, by %s, explains it",
                noted.sequence,
                noted.hash,
                result.excuse.sequence,
                result.excuse.actor or "nobody named",
            )
        self._missing = ""
        if result.note != noted:
            self._note = result.note
            if self._path is not None:
                await asyncio.to_thread(_write, self._path, result.note)

    def _miss(self, what: str) -> None:
        if what != self._missing:
            log.error("the audit trail %s", what)
        self._missing = what

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
