"""docs/operating.md: it names every command, and its commands are ones that can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gateway.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = getattr(group, "commands", None)
    if inside is None:
        yield words, group
        return
    for name, command in inside.items():
        yield from commands(command, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))
TYPED = sorted({line.split("  #")[0].strip() for line in re.findall(r"(?:^|`)(gateway [^`\n\[]*)", PAGE, re.M)})


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("serve",)], ids=" ".join)
def test_the_page_names_every_command(words: tuple[str, ...]) -> None:
    assert f"gateway {' '.join(words)}" in PAGE


@pytest.mark.parametrize("line", [line for line in TYPED if "--install-completion" not in line])
def test_a_command_of_the_page_can_be_typed(line: str) -> None:
    given = shlex.split(line)[1:]
    words = next(words for words in COMMANDS if tuple(given[: len(words)]) == words)
    COMMANDS[words].make_context(line, given[len(words) :])
