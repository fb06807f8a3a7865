"""What people see: texts that cannot steer a terminal, tables that fit it."""

import json
from io import StringIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from gateway.cli.printing import READABLE_WIDTH, Format, printable, say, show, table, to_json

LONG = "the score of the new version dropped on requests from tablets and nobody knows why so far"


def drawn(columns: list[str], rows: list[list[str]], width: int) -> list[str]:
    out = Console(width=width, file=StringIO(), force_terminal=True, color_system=None)
    out.print(table(columns, rows, out))
    assert isinstance(out.file, StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("score dropped", "score dropped"),
        ("caf\u00e9 \u65e5\u672c\u3000\u8a9e \U0001f600", "caf\u00e9 \u65e5\u672c\u3000\u8a9e \U0001f600"),
        ("\x1b[2J\x1b[31mfine\x07", r"\x1b[2J\x1b[31mfine\x07"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\x9b31m \x7f", r"\x9b31m \x7f"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("line\u2028break\ud800", r"line\u2028break\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_a_printable_text_has_one_line_and_no_control(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)


@given(st.text())
@example("\x9b31m \x7f \u202e \u2028 \ufeff")
@example(":bug: [red]no markup[/red]")
def test_json_says_the_same_and_steers_nothing(text: str) -> None:
    made = to_json({"reason": text})
    assert json.loads(made) == {"reason": text}
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in made)
    assert "\u202e" not in made


@pytest.mark.parametrize("form", list(Format))
def test_what_is_printed_is_what_was_said(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    said = "a :bug: [red]b[/red] \\o/"
    show(said, form, note=said)
    say(said)
    printed = capsys.readouterr()
    assert said in (json.loads(printed.out) if form is Format.JSON else printed.out)
    assert printed.err == said + "\n"


def test_a_table_that_fits_is_left_as_it_is() -> None:
    lines = drawn(["MODEL", "REASON"], [["digits", "fine"]], 80)
    assert [line.split() for line in lines if line.strip("─ ")] == [["MODEL", "REASON"], ["digits", "fine"]]


def test_wide_columns_fold_and_narrow_ones_do_not() -> None:
    lines = drawn(["COMMITTED", "MODEL", "REASON"], [["2026-11-29T19:00:00Z", "digits", LONG]], 80)
    assert len(lines) > 3
    assert lines[2].startswith("2026-11-29T19:00:00Z   digits   the score of the new")


def test_many_columns_in_a_narrow_terminal_become_blocks() -> None:
    columns = [f"COLUMN{number}" for number in range(8)]
    lines = drawn(columns, [[LONG if number == 7 else "value" for number in range(8)], [""] * 7 + ["last"]], 60)
    assert lines[0].split() == ["COLUMN0", "value"]
    assert lines[-1].split() == ["COLUMN7", "last"]


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=4),
    st.integers(READABLE_WIDTH + 14, 200),
)
@example(rows=[], width=40)
@example(rows=[["", "", ""]], width=40)
@example(rows=[[LONG] * 3], width=40)
@example(rows=[["\u65e5" * 60] * 3], width=90)
def test_no_line_is_wider_than_the_terminal(rows: list[list[str]], width: int) -> None:
    for line in drawn(["MODEL", "VERSION", "REASON"], rows, width):
        assert Text(line.rstrip()).cell_len <= width


@given(
    st.lists(
        st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60), min_size=4, max_size=4),
        max_size=3,
    )
)
def test_no_character_is_lost(rows: list[list[str]]) -> None:
    text = "".join(drawn(["A", "B", "C", "D"], rows, 70))
    for character in set("".join(cell for row in rows for cell in row)) - set("ABCD"):
        assert text.count(character) == sum(cell.count(character) for row in rows for cell in row)
