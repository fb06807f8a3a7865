"""The compactor's counts as an operator sees them."""

import os
from pathlib import Path

from gateway.records.lake.accounts import Accounts
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.segment import SEALED, entries
from gateway.telemetry.published import published
from tests.records.labels import label, lake_labels, open_labels
from tests.records.traffic import append, lake_ids, open_log, open_stream


def shown(folder: Path) -> dict[str, float]:
    """The published samples by metric and label."""
    return {
        " ".join([name + suffix, *own.values()]): value
        for name, samples in published(folder).items()
        for suffix, own, value in samples
    }


async def test_what_waits_and_what_was_done_is_published(tmp_path: Path) -> None:
    log, feedback = open_log(tmp_path / "wal"), open_labels(tmp_path / "wal")
    append(open_stream(log), "a", rows=3)
    await log.close()
    await feedback.write([label("a"), label("b")])
    await feedback.close()
    (tmp_path / "wal" / "stray").write_text("alien")
    for entry in entries(tmp_path / "wal"):
        os.utime(entry.path, (1000, 1000))
    (tmp_path / "lake").write_text("in the way")
    worker = Compactor(CompactorConfig(str(tmp_path / "wal"), str(tmp_path / "lake")))
    accounts = Accounts(worker.counts, tmp_path / "published")
    worker.step()
    accounts.tend(1700.0)
    metrics = shown(tmp_path / "published")
    assert metrics["gateway_log_oldest_sealed_age_seconds"] == 700
    assert metrics["gateway_log_pending_bytes"] > 0
    assert (metrics["gateway_log_compactor_events_total failures"], metrics["gateway_log_quarantined_total alien"]) == (
        2,
        1,
    )
    (tmp_path / "lake").unlink()
    worker.step()
    accounts.tend(1701.0)  # too soon
    assert shown(tmp_path / "published") == metrics
    accounts.tend(1701.0, last=True)
    metrics = shown(tmp_path / "published")
    assert (metrics["gateway_log_oldest_sealed_age_seconds"], metrics["gateway_log_pending_bytes"]) == (0, 0)
    done = {what: metrics[f"gateway_log_compacted_total {what}"] for what in ("segments", "rows", "labels")}
    assert done == {"segments": 2, "rows": 3, "labels": 2}


async def test_segments_beyond_their_bound_go_oldest_first_but_never_labels(tmp_path: Path) -> None:
    log, feedback = open_log(tmp_path / "wal"), open_labels(tmp_path / "wal")
    append(open_stream(log), "a")
    await log.close()
    await feedback.write([label("a")])
    await feedback.close()
    (tmp_path / "lake").write_text("in the way")
    config = CompactorConfig(str(tmp_path / "wal"), str(tmp_path / "lake"), retention=RetentionLimits(wal_max_bytes=1))
    worker = Compactor(config)
    worker.step()
    assert worker.counts.lost_segments == 1
    (entry,) = (entry for entry in entries(tmp_path / "wal") if entry.suffix == SEALED)
    assert entry.segment is not None
    assert entry.segment.worker == "w0.feedback"
    (tmp_path / "lake").unlink()
    worker.step()
    assert (len(lake_labels(tmp_path / "lake")), lake_ids(tmp_path / "lake")) == (1, [])
