"""What is asked of a replay's process, and what it tells: JSON on standard input, lines of JSON as answers."""

from typing import Final

import msgspec

from gateway.replay.replay_report import LOGGED, ReplayReport
from gateway.replay.rerun_report import RerunReport

REPLAY_PROCESS: Final = ("-P", "-m", "gateway.replay.replay_process")
MOST_ROWS: Final = 1_000_000


class RerunQuestion(msgspec.Struct, frozen=True, tag="rerun"):
    """Which logged request of a model is run again. `repository` as in `ReplayQuestion`."""

    data_dir: str
    model: str
    request_id: str
    now_us: int
    repository: str = ""
    links_to: tuple[str, ...] = ()


class ReplayQuestion(msgspec.Struct, frozen=True, tag="replay"):
    """Which logged rows of a model run through `version`, and what with they are compared: a version, or `LOGGED`.

    `repository` is the URI of the model repository, "" for what routes keep; `where` an SQL condition; `by` a column;
    `tolerance` how far a score may move (`RowComparison.changed`); `shown` how many rows are told.
    Units: microseconds since the Unix epoch; `rows` at most; `limit_s` seconds for everything; `memory_bytes` of
           address space of one version, 0 as for a probe.
    """

    data_dir: str
    model: str
    version: str
    start_us: int
    end_us: int
    now_us: int
    against: str = LOGGED
    repository: str = ""
    links_to: tuple[str, ...] = ()
    where: str = ""
    by: str = ""
    rows: int = 10_000
    tolerance: float = 0.01
    shown: int = 20
    limit_s: float = 600.0
    memory_bytes: int = 0


class ReplayMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a replay is; the last one has the report, or the error and whether the question was wrong."""

    done: int = 0
    total: int = 0
    report: ReplayReport | None = None
    rerun: RerunReport | None = None
    error: str = ""
    is_usage: bool = False
