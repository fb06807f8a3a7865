"""Whatever tensors a model has, what was appended comes back: from the segment, and from Parquet."""

import asyncio
import base64
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.records.worker.reading import Block, read
from gateway.records.worker.record import Record
from gateway.records.worker.segment import entries
from gateway.records.worker.stream_schema import is_batched, is_flat, width
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, balanced, compactor, lake_rows, open_log

Array = npt.NDArray[np.generic]
Stream = tuple[list[TensorSpec], list[TensorSpec], list[tuple[int, list[Array | None], list[Array]]]]
Tail = st.lists(st.sampled_from([1, 2, 3, -1]), max_size=2).map(tuple)


@st.composite
def specs(draw: st.DrawFn, name: str) -> TensorSpec:
    if draw(st.integers(0, 4)) == 4:
        return TensorSpec(name, draw(st.sampled_from(list(Datatype))), (), any_shape=True)
    tail = draw(Tail)
    shape = (-1, *tail) if draw(st.booleans()) or not tail else tail
    return TensorSpec(name, draw(st.sampled_from(list(Datatype))), shape)


@st.composite
def tensors(draw: st.DrawFn, spec: TensorSpec, rows: int) -> Array:
    shape = tuple(
        (rows if place == 0 and is_batched(spec) else draw(st.integers(0, 3))) if size < 0 else size
        for place, size in enumerate(draw(Tail) * 2 if spec.any_shape else spec.shape)
    )
    count = math.prod(shape)
    if spec.datatype is Datatype.BYTES:
        texts = draw(
            st.lists(st.binary(max_size=6) | st.text(max_size=3).map(str.encode), min_size=count, max_size=count)
        )
        made = np.empty(count, object)
        made[:] = texts
        return made.reshape(shape)
    raw = draw(st.binary(min_size=count * spec.datatype.size, max_size=count * spec.datatype.size))
    if spec.datatype is Datatype.BOOL:
        raw = bytes(value & 1 for value in raw)
    return np.frombuffer(raw, spec.datatype.dtype).reshape(shape)


@st.composite
def streams(
    draw: st.DrawFn,
) -> tuple[list[TensorSpec], list[TensorSpec], list[tuple[int, list[Array | None], list[Array]]]]:
    inputs = [draw(specs(f"in{index}")) for index in range(draw(st.integers(1, 2)))]
    outputs = [draw(specs(f"out{index}")) for index in range(draw(st.integers(1, 2)))]
    records = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 3))
        given_in = [draw(st.none() | tensors(spec, rows)) for spec in inputs]
        given_out = [draw(tensors(spec, rows)) for spec in outputs] if draw(st.booleans()) else []
        records.append((rows, given_in, given_out))
    return inputs, outputs, records


def _write(directory: Path, stream: Stream, *, raw: bool) -> None:
    inputs, outputs, records = stream

    async def go() -> None:
        log = open_log(directory)
        target = log.stream("m", "1", "a", tuple(inputs), tuple(outputs), "d")
        for index, (rows, given_in, given_out) in enumerate(records):
            sent = [_sent(tensor, raw=raw) for tensor in given_in]
            shapes = [None if tensor is None else tensor.shape for tensor in given_in]
            target.append(
                Record(NOW_US + index, f"r{index}", 0, "DEFAULT", 1, -1, rows, 1, 2, 3, shapes, sent, given_out)
            )
        await log.close()
        counts = log.counts()
        assert (counts.written, counts.withheld, dict(counts.dropped)) == (len(records), {}, {}), counts
        assert balanced(counts)

    asyncio.run(go())


def _sent(tensor: Array | None, *, raw: bool) -> bytes | Array | None:
    return tensor.tobytes() if raw and tensor is not None and tensor.dtype != object else tensor


def _blocks(directory: Path) -> list[Block]:
    logged = [(entry.path, entry.segment) for entry in entries(directory)]
    return [block for path, segment in logged if segment for block in read(path.read_bytes(), segment).blocks()]


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return left == right


def _expected(spec: TensorSpec, tensor: Array) -> list[object]:
    if spec.datatype is Datatype.BF16:
        return list((tensor.astype("<u4") << np.uint32(16)).view("<f4").ravel().tolist())
    return list(tensor.ravel().tolist())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(streams(), st.booleans())
def test_a_segment_gives_back_every_tensor(stream: Stream, raw: bool) -> None:
    inputs, outputs, records = stream
    with TemporaryDirectory() as folder:
        _write(Path(folder), stream, raw=raw)
        (block,) = _blocks(Path(folder))
    assert block.ids == tuple(f"r{index}" for index in range(len(records)))
    for column, spec, index, side in [
        *((block.inputs[i], spec, i, 1) for i, spec in enumerate(inputs)),
        *((block.outputs[i], spec, i, 2) for i, spec in enumerate(outputs)),
    ]:
        for number, record in enumerate(records):
            tensor = record[side][index] if record[side] else None  # type: ignore[index]
            if tensor is None:
                assert column.modes[number] == 0
                continue
            assert column.shape(number) == tensor.shape
            expected = _expected(spec, tensor)
            if spec.datatype is Datatype.BYTES:
                expected = [bytes(value).decode(errors="replace") for value in tensor.ravel().tolist()]
            got = column.elements(number, 10_000)
            assert len(got) == len(expected)
            assert all(map(_same, got, expected))


def _cell(spec: TensorSpec, value: object) -> object:
    if spec.datatype is not Datatype.BYTES:
        return value
    raw = bytes(value)  # type: ignore[call-overload]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def _check_row(row: dict[str, Any], spec: TensorSpec, tensor: Array, prefix: str, flat_prefix: str) -> None:
    instance, size = row["row_index"], row["batch_size"]
    if is_flat(spec):
        features = width(spec)
        values = _expected(spec, tensor)[instance * features : (instance + 1) * features]
        for place, value in enumerate(values):
            name = flat_prefix + spec.name + (f"_{place}" if features > 1 else "")
            assert _same(row[name], _cell(spec, value)), (name, row[name], value)
        return
    name = prefix + spec.name
    if is_batched(spec) and tensor.shape[0] == size:
        whole = tensor[instance : instance + 1]
        shape = list(tensor.shape[1:])
    elif instance == 0:
        whole, shape = tensor, list(tensor.shape)
    else:
        assert row[name] is None
        return
    assert row[f"{name}.shape"] == shape
    expected = [_cell(spec, value) for value in _expected(spec, whole)]
    assert len(row[name]) == len(expected)
    assert all(map(_same, row[name], expected))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(streams())
def test_parquet_gives_back_every_tensor_one_row_per_instance(stream: Stream) -> None:
    inputs, outputs, records = stream
    with TemporaryDirectory() as folder:
        log, lake = Path(folder, "wal"), Path(folder, "lake")
        _write(log, stream, raw=False)
        worker = compactor(log, lake)
        worker.step()
        assert not worker.counts.quarantined, worker.counts
        rows = lake_rows(lake)
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["request_id"], []).append(row)
    assert list(by_id) == [f"r{index}" for index in range(len(records))]
    for index, (_, given_in, given_out) in enumerate(records):
        own = by_id[f"r{index}"]
        assert [row["row_index"] for row in own] == list(range(own[0]["batch_size"])) == list(range(len(own)))
        for row in own:
            for spec, tensor in zip(inputs, given_in, strict=True):
                if tensor is not None:
                    _check_row(row, spec, tensor, "in.", "f.")
            for spec, made in zip(outputs, given_out, strict=False):
                _check_row(row, spec, made, "out.", "out.")
