"""The digest by which a request that ended a worker is known again."""

import numpy as np
import pytest

from gateway.serving.call import Call
from gateway.serving.input_digest import input_digest
from gateway.tensor import Array, Buffer

LONG = 1 << 20


class Nobody:
    """Waits for no answer."""

    def submitted(self, call: Call) -> None: ...

    def answered(self, call: Call) -> None: ...

    def withdrawn(self, call: Call) -> None: ...


def digest(tensor: Array | Buffer | None, rows: int = 1) -> int:
    call = Call("m", "1", "", Nobody())
    call.inputs, call.rows = [tensor], rows
    return input_digest(call, fixed=True)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, LONG])
def test_bytes_and_an_array_of_them_have_one_digest(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    same: list[Buffer | Array] = [data, memoryview(data), np.frombuffer(data, np.uint8)]
    assert len({digest(tensor) for tensor in same}) == 1


@pytest.mark.parametrize("place", [0, 1, 4095, LONG - 4096, LONG - 1])
def test_a_byte_at_either_end_of_a_long_input_counts(place: int) -> None:
    data = bytearray(LONG)
    before = digest(bytes(data))
    data[place] = 1
    assert digest(bytes(data)) != before


@pytest.mark.parametrize("size", [100, LONG])
def test_rows_and_length_count(size: int) -> None:
    assert len({digest(bytes(size)), digest(bytes(size), rows=2), digest(bytes(size + 1)), digest(None)}) == 4


def test_a_long_input_that_differs_all_over_is_another() -> None:
    generator = np.random.default_rng(1)
    assert digest(generator.bytes(LONG)) != digest(generator.bytes(LONG))
