"""The commands of the command line, as typer has them."""

from collections.abc import Iterator
from typing import Any

import typer

from gateway.cli.app import app


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = getattr(group, "commands", None)
    if inside is None:
        yield words, group
        return
    for name, command in inside.items():
        yield from _commands(command, (*words, name))


COMMANDS: dict[tuple[str, ...], Any] = dict(_commands(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    """The names of a command's options and arguments, as its function has them."""
    return {parameter.name for parameter in command.params}
