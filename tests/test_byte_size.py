"""Numbers of bytes: read as they are written, and shown so that nothing but 0 looks like 0."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.byte_size import read_bytes, rounded_bytes, written_bytes


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("7B", 7), ("64KiB", 1 << 16), ("512MiB", 1 << 29), (" 2GiB", 2 << 30), ("-1", -1)]
)
def test_a_text_is_a_number_with_or_without_a_unit(text: str, value: int) -> None:
    assert read_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["", "MiB", "512MB", "512M", "512mib", "1.5GiB", "-1KiB", "1 KiB", "0x10", "\u0661KiB"]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        read_bytes(text)


@given(st.integers(0, 1 << 60))
@example(0)
@example(1)
@example(1023)
@example((1 << 50) + 1)
def test_what_is_written_is_read_as_the_same_number(value: int) -> None:
    assert read_bytes(written_bytes(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (700 << 10, "700.0 KiB"),
        ((1 << 20) - 30, "1.0 MiB"),
        ((1 << 20) - 100, "1023.9 KiB"),
        (1023.7, "1.0 KiB"),
        (3 << 20, "3.0 MiB"),
        (1 << 51, "2.0 PiB"),
    ],
)
def test_people_read_the_largest_unit_that_there_is_one_of(value: float, text: str) -> None:
    assert rounded_bytes(value) == text
