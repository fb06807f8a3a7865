"""The loads and unloads that operators asked for by hand, kept on disk so that they outlive a restart.

    <data-dir>/state/unloaded.json    ["model", ...]
    <data-dir>/state/overrides.json   {"model": "configuration as JSON text", ...}
    <data-dir>/state/pins.json        {"model": {"version": "digest", ...}, ...}: the content that routes were given
    <data-dir>/state/kept.json        {"model": "digest", ...}: the files beside the versions of such a model, as copied

All workers of a host share the files: each change is a read, a change and an atomic replacement under one lock.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.errors import Unavailable

logger = logging.getLogger(__name__)

Kind = TypeVar("Kind", list[str], dict[str, str], dict[str, dict[str, str]])


@dataclass(frozen=True, slots=True)
class Intents:
    """Holds the unloaded models, the configurations that replace config.pbtxt, and the digests of routed versions.

    `kept` has the digest of the files beside the versions of each model that has pins.
    """

    unloaded: frozenset[str] = frozenset()
    overrides: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

    def digests(self) -> frozenset[str]:
        """Returns the digests of all copies that routes need."""
        return frozenset(digest for pins in self.pins.values() for digest in pins.values()).union(self.kept.values())

    def with_unload(self, model: str) -> "Intents":
        return replace(self, unloaded=self.unloaded | {model})

    def with_load(self, model: str, override: str | None) -> "Intents":
        """Returns the intents after a load, which cancels an unload and the configuration of an earlier load."""
        overrides = {name: text for name, text in self.overrides.items() if name != model}
        if override is not None:
            overrides[model] = override
        return replace(self, unloaded=self.unloaded - {model}, overrides=overrides)

    def with_pins(self, model: str, digests: Mapping[str, str]) -> "Intents":
        """Returns the intents with pins for exactly these versions of the model; a digest that is known stays."""
        known = self.pins.get(model, {})
        others = {name: pins for name, pins in self.pins.items() if name != model}
        own = {name: known.get(name) or digest for name, digest in digests.items()}
        if own:
            return replace(self, pins={**others, model: own})
        return replace(self, pins=others, kept={name: kept for name, kept in self.kept.items() if name != model})

    def with_kept(self, model: str, digest: str) -> "Intents":
        """Returns the intents with the copy of the files beside the model's versions, if the model has pins."""
        return replace(self, kept={**self.kept, model: digest}) if digest and model in self.pins else self


class IntentStore:
    """Stores the intents on disk. Every method blocks: call it on a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> Intents:
        """Returns the intents on disk; a damaged file counts as empty and is named in the log."""
        return Intents(
            frozenset(self._load("unloaded.json", list[str])),
            self._load("overrides.json", dict[str, str]),
            self._load("pins.json", dict[str, dict[str, str]]),
            self._load("kept.json", dict[str, str]),
        )

    def change(self, change: Callable[[Intents], Intents]) -> Intents:
        """Returns the intents after `change`; they are on disk when this returns.

        Raises: Unavailable, if they cannot be written; then the old ones hold.
        """
        try:
            with self._locked():
                before = self.read()
                after = change(before)
                if after.overrides != before.overrides:
                    self._write("overrides.json", dict(sorted(after.overrides.items())))
                if after.pins != before.pins:
                    self._write("pins.json", {model: dict(after.pins[model]) for model in sorted(after.pins)})
                if after.kept != before.kept:
                    self._write("kept.json", dict(sorted(after.kept.items())))
                if after.unloaded != before.unloaded:
                    self._write("unloaded.json", sorted(after.unloaded))
        except OSError as error:
            raise Unavailable(f"the change cannot be kept in the data directory: {error.strerror}") from error
        return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _load(self, name: str, kind: type[Kind]) -> Kind:
        path = self._directory / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("state file cannot be read: file=%s error=%s", name, error)
        return kind()

    def _write(self, name: str, content: Kind) -> None:
        staging = self._directory / f"{name}.{os.getpid()}"
        try:
            with open(staging, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(content), indent=1))
                file.flush()
                os.fsync(file.fileno())
            os.replace(staging, self._directory / name)
        finally:
            staging.unlink(missing_ok=True)
