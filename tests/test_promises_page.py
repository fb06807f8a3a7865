"""What docs/promises.md names exists: every promise has a row, and every row tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "promises.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
PROMISES = [f"P{number}" for number in range(1, 29)]

# The numbers of the tables by which bad inputs and faults are tested.
INPUTS = {*range(1, 104)} - {9, 15, 21, 25, 44, 48, 61, 72, 79, 88, 101}
FAULTS = {*range(1, 30)}


def numbered(section: str, mark: str) -> list[int]:
    """The numbers in the first cells of a section's table, "3-5" being three."""
    numbers: list[int] = []
    for line in PAGE.partition(section)[2].partition("\n#")[0].splitlines():
        cell = line.removeprefix("| ").partition(" |")[0]
        if re.fullmatch(rf"({mark}\d+(-{mark}\d+)?(, )?)+", cell):
            for part in cell.replace(mark, "").split(", "):
                first, _, last = part.partition("-")
                numbers += range(int(first), int(last or first) + 1)
    return numbers


@pytest.mark.parametrize(
    ("section", "mark", "expected"), [("## Bad inputs\n", "", INPUTS), ("### By number\n", "F", FAULTS)]
)
def test_every_bad_input_and_every_fault_has_one_row(section: str, mark: str, expected: set[int]) -> None:
    assert sorted(numbered(section, mark)) == sorted(expected)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{path}::{name}" for path, name in NAMED])
def test_a_test_that_shows_a_promise_is_there(path: str, name: str) -> None:
    source = TESTS / path
    assert source.is_file()
    assert re.search(rf"^(?:async )?def {name}\(", source.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_has_a_row_that_says_whether_it_holds(promise: str) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| **{promise}** ")]
    statement, tests, _ = (cell.strip() for cell in row.removeprefix("|").removesuffix("|").split("|"))
    assert re.search(r"\b(Holds|In part|Does not hold)\b", statement)
    assert "::" in tests


def test_the_page_says_what_nothing_shows() -> None:
    assert "## What nothing shows" in PAGE
