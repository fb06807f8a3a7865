"""What a supervisor starts its children by: their commands, and the line on which each is told its settings."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.records.sinks.target import parse_targets
from gateway.routing.store.store_keys import StoreKeys
from gateway.runtime.child import Settings
from gateway.runtime.sections import DRIFT_WINDOWS_S


def _module(name: str) -> tuple[str, ...]:
    # -P: what lies in the working directory is not imported.
    return (sys.executable, "-P", "-m", name)


def _guarded(name: str) -> tuple[str, ...]:
    """Returns the command of a module that knows nothing of supervisors, run so that it dies with this one."""
    return (*_module("gateway.runtime.orphan_guard"), str(os.getpid()), name)


def _line(settings: Mapping[str, object]) -> str:
    return msgspec.json.encode(settings).decode()


def for_compactor(settings: Settings) -> str:
    config = settings.config
    return _line(
        {
            "log_directory": str(config.wal_dir),
            "lake_directory": str(config.lake_dir),
            "published_directory": str(config.published_dir),
            "data_directory": str(config.process.data_dir),
            "drift_window_s": DRIFT_WINDOWS_S[config.drift.window],
            "retention": {
                "max_age_s": config.log.retention_days * 86400.0,
                "max_bytes": config.log.retention_bytes,
            },
            "sinks": [target.name for target in parse_targets(config.log.sinks)],
            "after_death": bool(settings.predecessor),
            "hurried": settings.last,
            "log_level": config.process.log_level,
            "log_format": config.process.log_format,
        }
    )


def for_sinks(settings: Settings) -> str:
    config = settings.config
    return _line(
        {
            "lake_directory": str(config.lake_dir),
            "published_directory": str(config.published_dir),
            "sinks": config.log.sinks,
            "routing_key": StoreKeys(config.store.environment).epoch,
            "log_level": config.process.log_level,
            "log_format": config.process.log_format,
        }
    )


@dataclass(frozen=True, slots=True)
class Programs:
    """The commands of the children."""

    worker: tuple[str, ...] = field(default_factory=lambda: _module("gateway.runtime.worker"))
    control: tuple[str, ...] = field(default_factory=lambda: _module("gateway.runtime.control_process"))
    compactor: tuple[str, ...] = field(default_factory=lambda: _guarded("gateway.runtime.compaction"))
    sinks: tuple[str, ...] = field(default_factory=lambda: _guarded("gateway.records.sinks.sinks_process"))
    valkey: tuple[str, ...] = field(default_factory=lambda: _module("gateway.runtime.valkey"))
