"""What an answer has to wait for when the prediction log is full, and what it never waits for."""

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from gateway.records.worker.back_pressure import LossPolicy
from gateway.records.worker.prediction_log import LogLimits
from tests import models
from tests.api.stand import Stand, standing
from tests.records.traffic import balanced

ROW = np.ones((1, 4), "<f4").tobytes()


def message(number: int) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="affine", id=f"r{number}", raw_input_contents=[ROW])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    return made


async def ask(stand: Stand, count: int) -> list[grpc.StatusCode]:
    calls = [stand.stub.ModelInfer(message(number), timeout=20) for number in range(count)]
    await asyncio.gather(*calls, return_exceptions=True)
    return [await call.code() for call in calls]


def repository(folder: Path) -> Path:
    models.write_version(folder / "models", "affine", "1", models.affine(2.0))
    return folder / "models"


def in_the_way(folder: Path) -> Path:
    """A file where the log's directory has to be: no write succeeds until it is gone."""
    path = folder / "data" / "wal"
    path.parent.mkdir()
    path.write_bytes(b"")
    return path


def limits(policy: LossPolicy, **changes: object) -> LogLimits:
    return LogLimits(policy=policy, **{"max_records": 10, "block_s": 10.0, "flush_interval_s": 60.0, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [LossPolicy.BLOCK, LossPolicy.AUDIT])
async def test_answers_wait_for_room_and_no_row_is_lost(tmp_path: Path, policy: LossPolicy) -> None:
    data = tmp_path / "data"
    async with standing(repository(tmp_path), data, probes=tmp_path / "probes", log_limits=limits(policy)) as stand:
        assert set(await ask(stand, 40)) == {grpc.StatusCode.OK}
        await stand.log.flush()
        counts = stand.log.counts()
        assert (counts.written, dict(counts.dropped), counts.buffered) == (40, {}, 0)
        assert counts.blocked_ns > 0
        assert balanced(counts)


async def test_a_full_log_costs_rows_and_no_answer_waits_or_fails(tmp_path: Path) -> None:
    in_the_way(tmp_path)
    given = limits(LossPolicy.DROP_NEWEST)
    async with standing(repository(tmp_path), tmp_path / "data", probes=tmp_path / "p", log_limits=given) as stand:
        assert set(await ask(stand, 40)) == {grpc.StatusCode.OK}
        counts = stand.log.counts()
        assert (counts.buffered, dict(counts.dropped), counts.blocked_ns) == (8, {"buffer": 32}, 0)
        assert balanced(counts)


async def test_whoever_waited_long_enough_is_answered_and_the_row_is_lost(tmp_path: Path) -> None:
    in_the_way(tmp_path)
    given = limits(LossPolicy.BLOCK, block_s=0.02)
    async with standing(repository(tmp_path), tmp_path / "data", probes=tmp_path / "p", log_limits=given) as stand:
        assert set(await ask(stand, 40)) == {grpc.StatusCode.OK}
        await stand.log.flush()
        counts = stand.log.counts()
        assert (counts.written, sum(counts.dropped.values())) == (0, 40)
        assert balanced(counts)


async def test_an_audit_refuses_answers_whose_record_would_be_lost_and_recovers_by_itself(tmp_path: Path) -> None:
    path = in_the_way(tmp_path)
    given = limits(LossPolicy.AUDIT, block_s=0.02, flush_interval_s=0.01)
    async with standing(repository(tmp_path), tmp_path / "data", probes=tmp_path / "p", log_limits=given) as stand:
        async with asyncio.timeout(20):
            while await ask(stand, 1) != [grpc.StatusCode.RESOURCE_EXHAUSTED]:
                pass
        call = stand.stub.ModelInfer(message(0), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert "prediction log has no room" in str(refused.value.details())
        path.unlink()
        async with asyncio.timeout(20):
            while await ask(stand, 1) != [grpc.StatusCode.OK]:
                pass
        assert balanced(stand.log.counts())
    assert stand.engine.in_flight == 0
