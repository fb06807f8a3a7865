"""The compactor as a process: its settings from standard input, one for a lake, steps until it is told to end."""

import fcntl
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import time

from gateway.records.lake import parquet
from gateway.records.lake.accounts import Accounts
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.coverage import Coverage
from gateway.records.lake.observer import Ledger, Observer
from gateway.records.step_process import StepProcess, first_line, has_listener
from gateway.telemetry.logs import start_logging

_NICENESS = 10
_log = logging.getLogger(__name__)


def _run(compactor: Compactor, accounts: Accounts, config: CompactorConfig, *, reports: bool) -> None:
    """Compacts until told to end; the last step puts what the workers sealed on their way out into Parquet."""

    def step(progress: Callable[[], None]) -> None:
        compactor.step(progress)
        compactor.tend()
        accounts.tend(time())

    def hurry() -> None:
        """Makes the process nice no more, where that is allowed: on a busy machine the stop might not wait for it."""
        if not config.hurried:
            with suppress(PermissionError):
                os.nice(-_NICENESS)

    def describe() -> dict[str, object]:
        return {"compactor": compactor.counts.to_json()}

    StepProcess(step, describe, config.interval_s, reports=reports, hurry=hurry).run()
    compactor.tend(last=True)
    accounts.tend(time(), last=True)


def main(
    ledgers: Callable[[CompactorConfig], Sequence[Ledger]] = lambda config: (),
    observers: Callable[[CompactorConfig], Sequence[Observer]] = lambda config: (),
) -> int:
    """Exit codes: 0 told to stop, 2 a configuration that does not make sense, 1 another compactor has the lake."""
    reports = has_listener()
    try:
        config = CompactorConfig.from_json(first_line())
    except ValueError as error:
        sys.stderr.write(f"compactor: configuration: {error}\n")
        return 2
    start_logging("compactor-0", config.log_level, config.log_format)
    if not config.hurried:
        os.nice(_NICENESS)
    parquet.limit_threads()
    lake = Path(config.lake_directory)
    lake.mkdir(parents=True, exist_ok=True)
    lock = os.open(lake / "_lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _log.error("another one works on %s", lake)
        return 1
    published = Path(config.published_directory) if config.published_directory else None
    watching = [Coverage(lake, published), *observers(config)]
    compactor = Compactor(config, observers=watching, ledgers=ledgers(config))
    _run(compactor, Accounts(compactor.counts, published), config, reports=reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
