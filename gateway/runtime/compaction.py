"""The compactor's process: compaction, and drift and performance in the same pass over the rows."""

import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.drift.online.assessment import Schedule
from gateway.drift.online.monitor import Monitor
from gateway.drift.online.performance_monitor import PerformanceMonitor
from gateway.drift.online.tally_store import TallyStore
from gateway.drift.profile_files import ProfileFiles
from gateway.records.lake import compactor_process
from gateway.records.lake.compactor import CompactorConfig
from gateway.records.lake.lake_manifest import Manifest
from gateway.records.lake.observer import Ledger, Observer

_DAYS = 2  # of the manifest; as far back as the compactor itself looks for segments that are done


def ledgers(config: CompactorConfig) -> Sequence[Ledger]:
    """Returns what counts the compactor's segments: the drift monitor, where a data directory has profiles."""
    if not config.data_directory:
        return ()
    lake = Path(config.lake_directory)
    done = frozenset(str(entry.get("segment")) for entry in Manifest(lake).entries(days=_DAYS))
    return (
        Monitor(
            ProfileFiles(Path(config.data_directory)),
            TallyStore(lake / "_state" / "drift"),
            Path(config.published_directory) if config.published_directory else None,
            is_done=done.__contains__,
            schedule=Schedule(config.drift_window_s),
        ),
    )


def observers(config: CompactorConfig) -> Sequence[Observer]:
    """Returns what looks at rows and labels: the monitor of performance, where a data directory has profiles."""
    if not config.data_directory:
        return ()
    return (
        PerformanceMonitor(
            ProfileFiles(Path(config.data_directory)),
            Path(config.lake_directory) / "_state" / "performance",
            Path(config.published_directory) if config.published_directory else None,
        ),
    )


if __name__ == "__main__":
    sys.exit(compactor_process.main(ledgers, observers))
