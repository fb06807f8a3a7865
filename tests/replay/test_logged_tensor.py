"""Tensors out of the lake are to the bit those that were sent, whatever their type and shape."""

import asyncio
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.span import Span
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record import Record
from gateway.replay.logged_request import logged_requests
from gateway.replay.logged_tensor import text_bytes
from gateway.replay.row_answer import same_bits
from gateway.tensor import Array, Datatype, TensorSpec
from tests.drift.lakes import DAY_US, START_US, lake_of

TAILS = {"scalar": (), "flat": (3,), "nested": (2, 2)}
ROWS = 4


def values(kind: Datatype, shape: tuple[int, ...]) -> Array:
    """Values of a type, the odd ones among them: both ends, NaN, infinities, texts of any bytes."""
    count = int(np.prod(shape))
    if kind is Datatype.BYTES:
        texts = [b"", b"caf\xc3\xa9", b"\xff\x00", b"base64:YQ==", b"null", b"x" * 1024]
        made = np.empty(count, object)
        made[:] = [texts[place % len(texts)] for place in range(count)]
        return made.reshape(shape)
    if kind is Datatype.BOOL:
        return np.asarray((np.arange(count) % 3 == 0).reshape(shape))
    if kind is Datatype.BF16:
        return np.asarray((np.arange(count) * 4099 % 65536).astype("<u2").reshape(shape))
    if kind.is_float:
        odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1 / 3, 6e-8, 65504.0])
        return np.asarray(odd[np.arange(count) % len(odd)].astype(kind.dtype).reshape(shape))
    ends = np.iinfo(kind.dtype)
    return np.asarray(np.array([ends.min, 0, 1, ends.max], kind.dtype)[np.arange(count) % 4].reshape(shape))


def logged(data: Path, specs: tuple[TensorSpec, ...], tensors: list[Array], *, batches: bool) -> None:
    async def go(wal: str) -> None:
        log = PredictionLog(Path(wal), worker="w0", gateway="gw", boot=str(uuid.uuid4()))
        stream = log.stream("all", "1", "stable", specs, (), "sha256:aa", batches=batches)
        shapes = [tensor.shape for tensor in tensors]
        stream.append(Record(START_US, "r", 0, "SPLIT", 3, 1, ROWS, 5, 7, 20, shapes, tensors, []))
        await log.close()

    with TemporaryDirectory() as wal:
        asyncio.run(go(wal))
        limits = RetentionLimits(max_age_s=1e9)
        Compactor(CompactorConfig(wal, str(lake_of(data)), retention=limits), clock=lambda: START_US / 1e6).step()


@pytest.mark.parametrize("batches", [True, False])
def test_what_was_sent_comes_back_to_the_bit(tmp_path: Path, batches: bool) -> None:
    known = {f"{kind.wire_name}-{name}": (kind, tail) for kind in Datatype for name, tail in TAILS.items()}
    specs = tuple(TensorSpec(name, kind, (-1, *tail)) for name, (kind, tail) in known.items())
    tensors = [values(kind, (ROWS, *tail)) for kind, tail in known.values()]
    logged(tmp_path, specs, tensors, batches=batches)
    seen = tuple(TensorSpec(one.name, one.datatype, one.shape, batched=batches) for one in specs)
    with Lake(lake_of(tmp_path)) as lake:
        [request] = logged_requests(lake, Selection("all", Span(START_US, START_US + DAY_US)), seen, ())
    assert (request.rows, request.whole) == (ROWS if batches else 1, True)
    made = request.tensors(seen, "in")
    assert not isinstance(made, str), made
    for spec, sent in zip(seen, tensors, strict=True):
        assert same_bits(made[spec.name], sent), spec


@given(st.binary(max_size=64))
@example(b"")
@example(b"base64:")
@example(b"base64:YQ==")
def test_a_text_of_the_log_is_the_bytes_that_it_was_made_of(content: bytes) -> None:
    from gateway.records.lake.parquet import _as_text

    assert text_bytes(_as_text(content)) == content
