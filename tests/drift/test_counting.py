"""What counts of a row, and how much: sampled rows, hidden features, withheld payloads, batches of many arms."""

import json
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.online.counting import LoggedArm, VersionRows, count
from gateway.drift.online.windows import WEIGHT_ONE, CellLayout, means
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_feature, build_profile
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.worker.record import Record
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import InputMode, RedactionAction, RedactionRule
from gateway.records.worker.sampling import Sampling
from gateway.tensor import Datatype, TensorSpec
from tests.drift.logged import BEGIN_S, HOUR_S, save_profile, watched
from tests.records.traffic import LABEL, SCORES, X, open_log

RNG = np.random.default_rng(5)
INPUTS = [build_feature(f"x_{index}", f"f.x_{index}", RNG.normal(size=5000)) for index in range(4)]
LAYOUT = CellLayout("1", (*INPUTS, build_feature("pred_score", "pred_score", RNG.uniform(size=5000))))


class Seen:
    """Keeps the tables that the compactor shows."""

    def __init__(self) -> None:
        self.rows: list[VersionRows] = []

    def prepare(self, segment: str, tables: object) -> None:
        self.rows += [VersionRows(table) for _, _, table in tables]  # type: ignore[attr-defined]

    def commit(self, segment: str) -> None:
        pass

    def tend(self, now_s: float, *, last: bool) -> None:
        pass


def seen(directory: Path) -> list[VersionRows]:
    ledger = Seen()
    Compactor(CompactorConfig(str(directory / "wal"), str(directory / "lake")), ledgers=[ledger]).step()
    return ledger.rows


async def test_a_sampled_row_stands_for_as_many_as_were_left_out(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal", sampling=Sampling(rate=0.25))
    stream = log.stream("flights", "1", "a", (X,), (LABEL, SCORES), "d", "")
    outputs = (np.zeros(1, "<i8").tobytes(), np.zeros((1, 3), "<f4").tobytes())
    for number in range(4000):
        x = (RNG.normal(size=(1, 4)).astype("<f4").tobytes(),)
        stream.append(Record(BEGIN_S * 1_000_000, f"r{number}", 0, "SPLIT", 1, 1, 1, 1, 2, 3, None, x, outputs))
    await log.close()
    (rows,) = seen(tmp_path)
    ((key, tally),) = count(rows, "1", LAYOUT).items()
    assert key == (LoggedArm("1", "a", False), BEGIN_S)
    assert 900 < tally.rows < 1100
    assert tally.sums[1] == tally.rows * 4 * WEIGHT_ONE
    assert tally.counts[LAYOUT.places[0]].sum() == tally.rows * 4 * WEIGHT_ONE
    assert tally.row_value == pytest.approx(1.0)  # all weigh the same: each is worth one row


async def test_what_redaction_hides_was_not_logged_and_is_not_missing(tmp_path: Path) -> None:
    """One feature of a tensor, or all of it: its siblings and the outputs are counted."""
    one = Redaction(rules=(RedactionRule("flights", "x", RedactionAction.NULL, feature=1),))
    for name, redaction, counted in (("one", one, [9, 0, 9, 9]), ("all", Redaction(inputs=InputMode.NONE), [0] * 4)):
        log = open_log(tmp_path / name / "wal", redaction=redaction)
        stream = log.stream("flights", "1", "a", (X,), (LABEL, SCORES), "d", "")
        outputs = (np.zeros(9, "<i8").tobytes(), np.full((9, 3), 0.25, "<f4").tobytes())
        x = (RNG.normal(size=(9, 4)).astype("<f4").tobytes(),)
        stream.append(Record(BEGIN_S * 1_000_000, "r", 0, "SPLIT", 1, 1, 9, 1, 2, 3, None, x, outputs))
        await log.close()
        (rows,) = seen(tmp_path / name)
        (tally,) = count(rows, "1", LAYOUT).values()
        assert tally.rows == 9
        assert [int(tally.counts[place].sum()) // WEIGHT_ONE for place in LAYOUT.places] == [*counted, 9]
        assert means(LAYOUT, tally)["pred_score"] == pytest.approx(0.25)


async def test_a_row_whose_payload_was_withheld_is_no_row(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = log.stream("flights", "1", "a", (X,), (LABEL, SCORES), "d", "")
    stream.append(Record(BEGIN_S * 1_000_000, "r", 0, "SPLIT", 1, 1, 9, 1, 2, 3, None, (None,), ()))
    await log.close()
    (rows,) = seen(tmp_path)
    (tally,) = count(rows, "1", LAYOUT).values()
    assert tally.rows == 0
    assert not tally.counts.any()


async def test_an_output_that_nobody_asked_for_is_not_missing(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    stream = log.stream("flights", "1", "a", (X,), (LABEL, SCORES), "d", "")
    x = (RNG.normal(size=(9, 4)).astype("<f4").tobytes(),)
    label = (np.zeros(9, "<i8").tobytes(),)
    stream.append(Record(BEGIN_S * 1_000_000, "r", 0, "SPLIT", 1, 1, 9, 1, 2, 3, None, x, label, (0,)))
    await log.close()
    (rows,) = seen(tmp_path)
    (tally,) = count(rows, "1", LAYOUT).values()
    assert tally.rows == 9
    assert not tally.counts[LAYOUT.places[4]].any()


async def test_batches_of_many_minutes_and_arms_in_any_order(tmp_path: Path) -> None:
    expected: dict[tuple[str, int], int] = {}
    log = open_log(tmp_path / "wal")
    for number in range(300):
        arm, minute, size = "abc"[int(RNG.integers(3))], int(RNG.integers(5)), int(RNG.integers(1, 6))
        stream = log.stream("flights", "1", arm, (X,), (LABEL, SCORES), "d", "")
        outputs = (np.zeros(size, "<i8").tobytes(), np.zeros((size, 3), "<f4").tobytes())
        x = (np.full((size, 4), number, "<f4").tobytes(),)
        moment_us = (BEGIN_S + 60 * minute) * 1_000_000
        stream.append(Record(moment_us, f"r{number}", 0, "SPLIT", 1, 1, size, 1, 2, 3, None, x, outputs))
        key = (arm, BEGIN_S + 60 * minute)
        expected[key] = expected.get(key, 0) + size
    await log.close()
    (rows,) = seen(tmp_path)
    result = {(arm.arm, minute_s): tally.rows for (arm, minute_s), tally in count(rows, "1", LAYOUT).items()}
    assert result == expected


async def test_an_embedding_is_watched_by_its_components(tmp_path: Path) -> None:
    """Vectors of 600 numbers that live in three dimensions; at last one of those moves, and there is more noise."""
    basis = RNG.normal(size=(3, 600))
    reference = RNG.normal(size=(3000, 3)) @ basis + RNG.normal(size=(3000, 600)) * 0.01
    scores = {"pred_score": RNG.uniform(size=3000)}
    profile = build_profile("flights", "1", {}, scores, created_at=1.0, source="", embeddings={"in.e": reference})
    ProfileFiles(tmp_path / "data").save(profile)
    spec = TensorSpec("e", Datatype.FP32, (-1, 600))
    for hour in range(6):
        log = open_log(tmp_path / "wal")
        stream = log.stream("flights", "1", "a", (spec,), (LABEL, SCORES), "d", "")
        shift = np.array([0.0, 1.5, 0.0]) if hour > 2 else np.zeros(3)
        vectors = (RNG.normal(size=(400, 3)) + shift) @ basis + RNG.normal(size=(400, 600)) * (
            0.05 if hour > 2 else 0.01
        )
        three = np.zeros((400, 3), "<f4")
        three[:, 0] = RNG.uniform(size=400)
        outputs = (np.zeros(400, "<i8").tobytes(), three.tobytes())
        at_us = (BEGIN_S + hour * HOUR_S) * 1_000_000
        stream.append(
            Record(
                at_us, f"r{hour}", 0, "DEFAULT", 1, -1, 400, 1, 2, 3, None, (vectors.astype("<f4").tobytes(),), outputs
            )
        )
        await log.close()
        worker, _ = watched(tmp_path, hours=hour + 1)
        worker.step()
        worker.tend(last=True)
        (arm,) = json.loads((tmp_path / "published" / "drift.json").read_text())["arms"]
        alarms = {one["feature"] for one in arm["features"] if one["state"] in ("warn", "crit")}
        if hour < 5:
            assert alarms == set()
    assert "in.e~rest" in alarms
    assert alarms & {"in.e~1", "in.e~2", "in.e~3"}
    assert "pred_score" not in alarms


async def test_a_split_that_loses_an_arms_requests_is_an_alarm(tmp_path: Path) -> None:
    """Three hours of requests over even buckets; of those of an arm with a tenth of them two thirds are not there."""
    save_profile(tmp_path, RNG.normal(size=(2000, 4)), RNG.uniform(size=2000))
    for name, lost in (("even", 0.0), ("uneven", 0.67)):
        directory = tmp_path / name
        (directory / "data").mkdir(parents=True)
        (directory / "data" / "profiles").symlink_to(tmp_path / "data" / "profiles")
        log = open_log(directory / "wal")
        for hour in range(3):
            at_us = (BEGIN_S + hour * HOUR_S) * 1_000_000
            for bucket in RNG.integers(0, 1_000_000, 2600).tolist():
                arm = "b" if bucket < 100_000 else "a"
                if arm == "a" or RNG.uniform() > lost:
                    stream = log.stream("flights", "1", arm, (X,), (LABEL, SCORES), "d", "")
                    stream.append(Record(at_us, "", 0, "SPLIT", 1, bucket, 1, 1, 2, 3, None, (None,), ()))
            stream.append(Record(at_us, "", 0, "PIN", 1, 5, 1, 1, 2, 3, None, (None,), ()))
        await log.close()
        worker, _ = watched(directory, hours=3)
        worker.step()
        worker.tend(last=True)
        (split,) = json.loads((directory / "published" / "drift.json").read_text())["splits"]
        assert split["state"] == ("ok" if name == "even" else "warn"), split
        assert split["requests"] <= 2600
