"""docs/operating.md: it names every command, and its commands are ones that can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from gateway.cli.exits import Exit
from tests.cli.tree import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


TYPED = sorted({line.split("  #")[0].strip() for line in re.findall(r"(?:^|`)(gateway [^`\n\[]*)", PAGE, re.M)})


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("serve",)], ids=" ".join)
def test_the_page_names_every_command(words: tuple[str, ...]) -> None:
    assert f"gateway {' '.join(words)}" in PAGE


@pytest.mark.parametrize("line", [line for line in TYPED if not line.startswith("gateway --")])
def test_a_command_of_the_page_can_be_typed(line: str) -> None:
    given = shlex.split(line)[1:]
    words = next(words for words in COMMANDS if tuple(given[: len(words)]) == words)
    COMMANDS[words].make_context(line, given[len(words) :])


def test_the_page_has_every_exit_code_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", PAGE, re.M))
    assert set(rows) == {str(exit.value) for exit in Exit}
    for exit in Exit:
        assert rows[str(exit.value)].startswith(exit.meaning)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("serve",)], ids=" ".join)
def test_the_page_names_every_variable_that_a_command_reads(words: tuple[str, ...]) -> None:
    page = PAGE.replace("`..._", "`GATEWAY_CLI_TLS_")
    for parameter in COMMANDS[words].params:
        assert parameter.envvar is None or f"`{parameter.envvar}`" in page, parameter.name
