"""Coverage and delay of labels: exact while they fit, close when they do not, and the same after a kill."""

from pathlib import Path

import numpy as np
import pytest

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.coverage import EARLY_US, MAX_ROWS, WINDOW_US, Coverage, CoverageSample, row_keys
from gateway.records.worker.label import request_hash
from gateway.telemetry.published import published
from tests.records.labels import label, open_labels
from tests.records.traffic import NOW_US, append, open_log, open_stream

SECOND_US = 1_000_000


def keys(count: int, *, salt: str = "") -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array([request_hash(f"{salt}{number}") for number in range(count)], np.uint64)


async def test_of_a_lake_it_says_which_share_of_each_version_has_labels_and_after_how_long(tmp_path: Path) -> None:
    log, feedback = open_log(tmp_path / "wal"), open_labels(tmp_path / "wal")
    for version in ("1", "2"):
        stream = open_stream(log, version=version)
        for number in range(10):
            append(stream, f"{version}.{number}", rows=2)
    append(open_stream(log), "failed", code=13)
    append(open_stream(log, version="3", shadow_of="1"), "1.0")
    later = NOW_US + 30 * SECOND_US
    labels = [label(f"1.{number}", row=row, received_us=later) for number in range(10) for row in (0, 1)]
    labels += [label("2.0", row=1, received_us=later), label("2.0", row=1, received_us=later + 5)]
    await feedback.write([*labels, label("nobody"), label("failed")])
    await feedback.close()
    await log.close()
    coverage = Coverage(tmp_path / "lake", tmp_path / "published")
    config = CompactorConfig(str(tmp_path / "wal"), str(tmp_path / "lake"))
    compactor = Compactor(config, clock=lambda: NOW_US / 1e6, observers=[coverage])
    compactor.step()
    compactor.tend(last=True)
    metrics = published(tmp_path / "published")
    assert {own["version"]: share for _, own, share in metrics["gateway_label_coverage_ratio"]} == {"1": 1.0, "2": 0.05}
    delays = {suffix + own.get("le", ""): value for suffix, own, value in metrics["gateway_label_delay_seconds"]}
    assert (delays["_bucket10"], delays["_bucket60"], delays["_count"], delays["_sum"]) == (0, 21, 21, 630)
    again = Coverage(tmp_path / "lake", None)
    assert list(again.samples()) == list(coverage.samples())
    again.tend(later / 1e6 + EARLY_US / 1e6 + 1, last=True)
    unmatched = [sample.value for sample in again.samples() if sample.metric.name == "gateway_label_unmatched"]
    assert unmatched == [2]


def test_a_label_that_comes_to_the_lake_before_its_row_is_matched() -> None:
    sample = CoverageSample()
    (key,) = keys(1).tolist()
    sample.label(key, NOW_US + 5 * SECOND_US)
    sample.forget(NOW_US + EARLY_US)
    sample.add("1", keys(1), np.array([NOW_US]))
    assert (sample.coverage(), sum(sample.delays), sample.delay_sum_s) == ({"1": 1.0}, 1, 5.0)


def test_what_is_seen_again_counts_once() -> None:
    sample = CoverageSample()
    for _ in range(3):
        sample.add("1", keys(100), np.full(100, NOW_US))
        for key in keys(30).tolist():
            sample.label(key, NOW_US)
    assert (sample.coverage(), sum(sample.delays)) == ({"1": 0.3}, 30)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_of_many_rows_a_bounded_sample_says_nearly_the_same(share: float) -> None:
    count, labelled = 200_000, int(200_000 * share)
    sample, all_keys = CoverageSample(), keys(200_000)
    for begin in range(0, count, 1000):
        part = all_keys[begin : begin + 1000]
        sample.add("1", part, np.full(len(part), NOW_US))
        for key in part[: int(len(part) * share)].tolist():
            sample.label(key, NOW_US + SECOND_US)
    assert len(sample.rows) <= MAX_ROWS
    assert sample.level > 0
    assert sample.coverage()["1"] == pytest.approx(share, abs=4 * (share * (1 - share) / (MAX_ROWS / 2)) ** 0.5)
    assert sum(sample.delays) == pytest.approx(labelled, rel=0.25)
    assert sample.unmatched == 0


def test_a_quiet_time_after_a_busy_one_is_weighed_as_it_should_be() -> None:
    sample = CoverageSample()
    half_us = WINDOW_US // 2
    sample.add("1", keys(100_000), np.full(100_000, NOW_US))
    sample.add("1", keys(10_000, salt="half"), np.full(10_000, NOW_US + half_us))
    busy, now_us = sample.level, NOW_US + WINDOW_US + SECOND_US
    for _ in range(3):
        sample.forget(now_us)
    assert sample.level == busy - 3
    late = keys(10_000, salt="late")
    sample.add("1", late, np.full(10_000, now_us))
    for key in late.tolist():
        sample.label(key, now_us)
    assert sample.coverage()["1"] == pytest.approx(0.5, abs=0.06)
    sample.forget(now_us + half_us)
    assert sample.coverage() == {"1": 1.0}


def test_labels_of_rows_that_are_only_not_sampled_are_no_strangers() -> None:
    sample = CoverageSample()
    all_keys = keys(50_000)
    sample.add("1", all_keys, np.full(50_000, NOW_US))
    for key in all_keys.tolist():
        sample.label(key, NOW_US)
    for key in keys(1000, salt="x").tolist():
        sample.label(key, NOW_US)
    sample.forget(NOW_US + EARLY_US + 1)
    assert sample.unmatched == pytest.approx(1000, rel=0.5)


def test_rows_of_one_request_have_keys_of_their_own() -> None:
    spread = row_keys(np.repeat(keys(100), 50), np.tile(np.arange(50), 100))
    assert len(np.unique(spread)) == 5000
    assert np.mean(spread < np.uint64(1 << 62)) == pytest.approx(0.25, abs=0.03)


def test_a_damaged_file_of_samples_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "_state").mkdir()
    (tmp_path / "_state" / "coverage.msgpack").write_bytes(b"\xc1")
    assert list(Coverage(tmp_path, None).samples()) == []


def test_models_are_bounded(tmp_path: Path) -> None:
    coverage = Coverage(tmp_path, None)
    for number in range(150):
        coverage.saw_labels([label("a", model=f"m{number}")])
    models = {sample.labels["model"] for sample in coverage.samples()}
    assert models == {f"m{number}" for number in range(50, 150)}
