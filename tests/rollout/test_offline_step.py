"""A canary whose first step replays logged requests: what its verdict does, and where it is recorded."""

import asyncio
from pathlib import Path
from time import time

import msgspec
import numpy as np

from gateway.rollout.controller import RolloutController
from gateway.rollout.evidence import no_evidence
from gateway.rollout.offline_verdict import OfflineVerdict
from gateway.rollout.ramp import Advance, Hold, RampState, Step, Stop, next_step
from gateway.rollout.recorded_verdict import judged_again, verdict_in
from gateway.rollout.rollout_story import rollout_event, told_rollout
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.strategy import Canary
from gateway.routing.store.audit_trail import audit
from gateway.runtime.config import Config
from gateway.runtime.offline_replay import OfflineReplays
from gateway.runtime.sections import ModelOptions, ProcessOptions
from gateway.telemetry.event_types import EventType
from tests.drift.lakes import write_rows
from tests.models import classifier
from tests.replay.replayed import softmax, write_model
from tests.rollout.rolling import MODEL, Hand, Rolling, document
from tests.routing.documents import Plain
from tests.routing.live import BY

STEPS: list[Plain] = [{"offline": {"failAbove": "5%", "rows": 200}}, {"weight": "10%", "hold": "1h"}]
PASSED = OfflineVerdict("pass", "1 of 100 rows would change", 100, 1, 0.01, 0.002, 0.04, 0.05)


def decided(
    verdict: OfflineVerdict | None, steps: list[Plain] = STEPS, approved_by: str = "", **analysis: object
) -> Step:
    strategy = document(steps, analysis=analysis).strategy
    assert isinstance(strategy, Canary)
    state = RampState("ramping", 0, 0, no_evidence(strategy.analysis or Analysis()), approved_by, offline=verdict)
    return next_step(strategy, state, 60_000)


def test_the_step_ends_with_its_verdict_and_by_nothing_else() -> None:
    assert isinstance(decided(None), Hold)
    assert decided(PASSED) == Advance(1, "offline: pass: 1 of 100 rows would change")
    verdicts = {name: msgspec.structs.replace(PASSED, verdict=name) for name in ("fail", "nodata", "hold")}
    assert isinstance(decided(verdicts["fail"]), Stop)
    assert isinstance(decided(verdicts["fail"], onFail="hold"), Hold)
    assert isinstance(decided(verdicts["nodata"]), Hold)  # nothing known never advances
    assert isinstance(decided(verdicts["nodata"], onNoData="rollback"), Stop)
    assert isinstance(decided(verdicts["nodata"], maxHold="30s"), Stop)
    assert isinstance(decided(verdicts["hold"]), Hold)
    assert isinstance(decided(verdicts["hold"], onInconclusive="advance"), Advance)
    asked: list[Plain] = [{**STEPS[0], "approval": ["ann"]}, STEPS[1]]
    assert "approval" in decided(PASSED, asked).reason
    assert isinstance(decided(PASSED, asked, "ann"), Advance)


def judge_of(rolling: Rolling, directory: Path) -> tuple[RolloutController, OfflineReplays]:
    """A judge with a data directory of its own."""
    config = Config(
        models=ModelOptions(repository=str(directory / "models")), process=ProcessOptions(data_dir=directory / "data")
    )
    replays = OfflineReplays(config, "host-a")
    return RolloutController(rolling.rollouts, Hand(rolling.control), "one", offline=replays), replays


def logged(directory: Path, *versions: bytes) -> None:
    """A log of the newest hour, and these versions of the model."""
    (directory / "data").mkdir()
    write_model(directory, MODEL, {str(place): content for place, content in enumerate(versions, 1)})
    x = np.random.default_rng(5).normal(size=(150, 4)).astype("<f4")
    moments = int((time() - 600) * 1e6) + np.arange(150) * 1000
    write_rows(directory / "data", moments, {"x": x}, {"scores": softmax(x, 3)}, model=MODEL)


async def test_a_version_that_answers_alike_gets_its_first_traffic(rolling: Rolling, tmp_path: Path) -> None:
    await asyncio.to_thread(logged, tmp_path, classifier(), classifier())
    judge, replays = judge_of(rolling, tmp_path)
    await rolling.control.apply(document(STEPS), change=BY)
    await rolling.until(lambda record: record.state.step == 1, judge)
    await replays.aclose()
    record = await rolling.record()
    assert record.state.offline is not None
    assert (record.state.offline.verdict, record.state.offline.rows, record.state.offline.host) == (
        "pass",
        150,
        "host-a",
    )
    assert (await rolling.control.get(MODEL)).document.strategy.table_weights() == {
        "stable": 900_000,
        "canary": 100_000,
    }
    before = msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, offline=None, step=0))
    assert rollout_event(before, record) is EventType.ROLLOUT_OFFLINE
    assert isinstance(told_rollout(record)["offline"], dict)


async def test_a_version_that_answers_otherwise_never_gets_any(rolling: Rolling, tmp_path: Path) -> None:
    await asyncio.to_thread(logged, tmp_path, classifier(), classifier(4))
    judge, replays = judge_of(rolling, tmp_path)
    await rolling.control.apply(document(STEPS), change=BY)
    await rolling.until(lambda record: record.state.phase == "stopped", judge)
    await replays.aclose()
    assert (await rolling.record()).told.startswith("offline: fail: ")
    entries = await audit(rolling.store, model=MODEL)
    assert [(entry.operation, entry.actor) for entry in entries] == [
        ("abort", "judge"), ("rollout.offline", "judge"), ("apply", "tester"),
    ]  # fmt: skip
    recorded = msgspec.json.decode(entries[1].detail, type=OfflineVerdict)
    assert (recorded.verdict, recorded.rows, recorded.limit) == ("fail", 150, 0.05)
    assert recorded.changed > 7
    assert str(recorded.changed) in entries[1].reason
    verdict = verdict_in(entries[0].detail)
    assert verdict is not None
    assert (verdict.act, judged_again(verdict, entries[0].reason).faults) == ("stop", ())


async def test_without_a_log_nothing_is_known_and_nothing_goes_on(rolling: Rolling, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_model(tmp_path, MODEL, {"1": classifier(), "2": classifier()})
    judge, replays = judge_of(rolling, tmp_path)
    await rolling.control.apply(document(STEPS), change=BY)
    await rolling.until(lambda record: record.state.offline is not None, judge)
    await judge.step()
    await replays.aclose()
    record = await rolling.record()
    assert (record.state.phase, record.state.step) == ("ramping", 0)
    assert record.told.startswith("offline: nodata: nothing was replayed: no prediction log")
    assert (await rolling.control.get(MODEL)).document.strategy.table_weights()["canary"] == 0
