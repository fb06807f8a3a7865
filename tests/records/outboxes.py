"""A lake with rows that wait for a sink."""

from pathlib import Path

from gateway.records.lake.compactor import Compactor, CompactorConfig
from tests.records.labels import label, open_labels
from tests.records.traffic import append, open_log, open_stream


async def fill(folder: Path, sink: str, *, segments: int = 1, rows: int = 100, labels: int = 0) -> None:
    """Compacts segments of that many rows (ids `SEGMENT.ROW`), and labels, for one sink."""
    log = open_log(folder / "wal")
    await log.close()
    for segment in range(segments):
        log = open_log(folder / "wal")
        stream = open_stream(log)
        for number in range(rows):
            append(stream, f"{segment}.{number}")
        await log.close()
        compact(folder, sink)
    if labels:
        feedback = open_labels(folder / "wal")
        await feedback.write([label(f"0.{number}") for number in range(labels)])
        await feedback.close()
        compact(folder, sink)


def compact(folder: Path, sink: str) -> None:
    Compactor(CompactorConfig(str(folder / "wal"), str(folder / "lake"), sinks=(sink,))).step()
