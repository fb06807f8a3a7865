"""Which requests and versions must not run any more, because a worker died of them: the rule, and its document.

1. A worker that is killed by a fault of its own while it runs a version counts as a death of that version.
2. Inputs that ran alone are refused from then on. Of several that ran together nobody knows which it was: they are
   suspects, and run alone the next time. If one of them then takes a worker alone, it is what the first one died of.
3. A version that two workers died of within a minute, of different inputs, is quarantined: none of its requests run.
4. A death that may have another cause than what ran (`is_proven` is false) makes suspects of inputs that ran alone,
   too: the next time shows it. Until then it is not one of the two deaths of rule 3.
5. Four workers that the kernel killed for want of memory within ten minutes, each while one input of the version was
   all that ran, and no kill without it meanwhile: it is quarantined on suspicion. A process that is killed while it
   does not run is proof that somebody else wants too much: it runs again at once, and is not suspected so for ten
   minutes. A kill while another suspect ran is no such proof, as both may want too much: it releases nobody, and keeps
   a version from being quarantined only where it is the other one's first.
6. All of it ends when somebody loads the model again, or after the time that the configuration gives.

Only the supervisor decides; workers read its document, as soon as its number in shared memory changes.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.serving.run_page import UnfinishedRun, VersionKey
from gateway.serving.worker_lives import WorkerLives

DEATHS: Final = 2
WINDOW_S: Final = 60.0
KILLS: Final = 4  # of workers for want of memory, each during a single run of the version
KILLS_WINDOW_S: Final = 600.0
MAX_INPUTS: Final = 1000  # of one version; beyond it the oldest are forgotten
_SAME_MOMENT_S: Final = 1e-3
_DOCUMENT: Final = "quarantine.json"
_NUMBER: Final = "quarantine.number"


class Quarantined(msgspec.Struct):
    """Holds what one version did; `inputs` and `suspects` until when, by digest.

    Units: seconds of the monotonic clock, which all processes of the machine share and nobody sets.

    `until_s` 0: the version as such may run; `charge` says why not. `kills_s` are those of rule 5, by which it is
    `suspected`; until `cleared_until_s` it is not.
    """

    model: str
    version: str
    digest: str
    cause: str = ""
    deaths: int = 0
    died_at_s: list[float] = []
    inputs: dict[int, float] = {}
    suspects: dict[int, float] = {}
    until_s: float = 0.0
    charge: str = ""
    kills_s: list[float] = []
    suspected: bool = False
    cleared_until_s: float = 0.0

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.model, self.version, self.digest)


class RunQuarantine:
    """The rule. It has no clock: each call says what time it is."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._versions: dict[VersionKey, Quarantined] = {}

    @property
    def versions(self) -> list[Quarantined]:
        return list(self._versions.values())

    def worker_died(
        self,
        runs: Sequence[UnfinishedRun],
        cause: str,
        now_s: float,
        *,
        is_proven: bool = True,
        for_memory: bool = False,
    ) -> list[str]:
        """Blames these runs; returns what follows from it, a line for each version.

        Where runs of several versions are to blame, none of the versions is charged with the death. `for_memory`: the
        kernel killed the worker, for want of memory.
        """
        until_s = now_s + self._hold_s
        certain = len({run.key for run in runs}) == 1
        lines = []
        for run in runs:
            version = self._versions.get(run.key)
            if version is None:
                version = self._versions[run.key] = Quarantined(*run.key)
            version.cause = cause
            digests = set(run.inputs)
            alone = len(digests) == 1 and run.calls <= len(run.inputs) and certain
            alone = alone and (is_proven or not digests.isdisjoint(version.suspects))
            for digest in digests:
                if alone:
                    if (suspected_until_s := version.suspects.pop(digest, 0.0)) and certain:
                        version.died_at_s = _without(version.died_at_s, suspected_until_s - self._hold_s)
                    version.inputs[digest] = until_s
                elif digest not in version.inputs:
                    version.suspects[digest] = until_s
            _forget_oldest(version.inputs)
            _forget_oldest(version.suspects)
            shown = ",".join(f"{digest:016x}" for digest in sorted(digests)[:8])
            what = "refused from now on" if alone else "run alone from now on"
            if certain:
                version.deaths += 1
            suspected = for_memory and len(runs) == len(digests) == 1 and self._suspects(version, now_s)
            if certain and (is_proven or alone):
                version.died_at_s = [at_s for at_s in version.died_at_s if now_s - at_s < WINDOW_S] + [now_s]
                if len(version.died_at_s) >= DEATHS:
                    version.until_s, version.suspected, suspected = until_s, False, False
                    version.charge = f"{len(version.died_at_s)} workers died of it within a minute ({cause})"
                    what += f"; the version is quarantined for {self._hold_s:g} s"
            if suspected:
                what += f"; the version is quarantined on suspicion for {self._hold_s:g} s"
            lines.append(f"{cause} while it ran model={run.key.model} version={run.key.version} input={shown}: {what}")
        return lines

    def _suspects(self, version: Quarantined, now_s: float) -> bool:
        """Counts a kill during a single run of the version; returns whether that quarantines it."""
        version.kills_s = [*_recent(version.kills_s, now_s), now_s]
        if now_s < version.cleared_until_s or len(version.kills_s) < KILLS:
            return False
        if version.until_s and not version.suspected:  # for a better reason
            return False
        since_s = version.kills_s[-KILLS]
        for other in self._versions.values():
            kills_s = _recent(other.kills_s, now_s)
            if other is not version and len(kills_s) == 1 and kills_s[0] >= since_s:
                return False
        version.until_s, version.suspected = now_s + self._hold_s, True
        version.charge = f"{len(version.kills_s)} workers were killed for want of memory while it alone ran"
        return True

    def killed_without(self, keys: Collection[VersionKey], now_s: float) -> list[VersionKey]:
        """Clears every version but these of what it was suspected of: the kernel killed a process for want of memory in
        which they alone ran. Nobody is cleared if that may be the fault of one of these. Returns the versions that run
        again."""
        released: list[VersionKey] = []
        if any(_recent(version.kills_s, now_s) for version in self._versions.values() if version.key in keys):
            return released
        for version in self._versions.values():
            if version.key in keys or not (version.kills_s or version.suspected):
                continue
            version.kills_s = []
            if version.suspected:
                version.until_s, version.suspected, version.cleared_until_s = 0.0, False, now_s + KILLS_WINDOW_S
                released.append(version.key)
        return released

    def release(self, model: str) -> bool:
        """Forgets everything about the model; returns whether there was anything."""
        keys = [key for key in self._versions if key.model == model]
        for key in keys:
            del self._versions[key]
        return bool(keys)

    def expire(self, now_s: float) -> bool:
        """Forgets what is over; returns whether there was anything. Deaths stay counted."""
        changed = False
        for version in self._versions.values():
            for held in (version.inputs, version.suspects):
                for digest in [digest for digest, until_s in held.items() if until_s <= now_s]:
                    del held[digest]
                    changed = True
            if 0 < version.until_s <= now_s:
                version.until_s, version.suspected, version.kills_s = 0.0, False, []
                changed = True
        return changed


class QuarantineFile:
    """The document in the run directory. Only the supervisor writes."""

    def __init__(self, directory: Path) -> None:
        self._document = directory / _DOCUMENT
        self._number = directory / _NUMBER

    def clear(self, lives: int = 0) -> WorkerLives:
        """Makes the files, empty; returns where so many workers can show that they live. Raises: OSError."""
        self._document.unlink(missing_ok=True)
        return WorkerLives.make(self._number, lives)

    def remove(self) -> None:
        """Leaves no file. Raises: OSError."""
        self._document.unlink(missing_ok=True)
        self._number.unlink(missing_ok=True)

    def write(self, versions: Iterable[Quarantined]) -> None:
        """Puts the document in place whole, then changes its number. Raises: OSError."""
        staged = self._document.with_suffix(".next")
        staged.write_bytes(msgspec.json.encode(list(versions)))
        staged.replace(self._document)
        descriptor = os.open(self._number, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            number = int.from_bytes(os.pread(descriptor, 8, 0), "little")
            os.pwrite(descriptor, (number + 1).to_bytes(8, "little"), 0)
        finally:
            os.close(descriptor)

    def read(self) -> list[Quarantined]:
        """Returns what the document says; nothing where there is none or it cannot be read."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._document.read_bytes(), type=list[Quarantined])
        return []

    @property
    def number_path(self) -> Path:
        return self._number


def _recent(kills_s: Sequence[float], now_s: float) -> list[float]:
    return [at_s for at_s in kills_s if now_s - at_s < KILLS_WINDOW_S]


def _without(died_at_s: Sequence[float], explained_s: float) -> list[float]:
    """Returns the deaths but for the one of that moment: two deaths of the same inputs are one reason to worry."""
    return [at_s for at_s in died_at_s if abs(at_s - explained_s) > _SAME_MOMENT_S]


def _forget_oldest(held: dict[int, float]) -> None:
    while len(held) > MAX_INPUTS:
        del held[next(iter(held))]
