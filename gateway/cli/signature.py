"""Options that many commands share, added to a command's own: typer reads them from a function's signature."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Command = Callable[..., None]


def option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    """A keyword parameter that typer takes for an option."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def extended(
    command: Command,
    shared: Sequence[inspect.Parameter],
    run: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    *,
    inner: Sequence[str] = (),
) -> Command:
    """A command with the name, the help and the options of `command` and the shared ones.

    `run(own, common)` is called with what both were given. An option that the command has itself is not added, and is
    in both. `inner` are parameters of the command that no user gives: `run` does.
    """
    own = [one for one in inspect.signature(command).parameters.values() if one.name not in inner]
    names = {one.name for one in own}
    parameters = [*own, *(one for one in shared if one.name not in names)]

    @functools.wraps(command)
    def typed(**given: Any) -> None:
        run({name: given[name] for name in names}, {one.name: given[one.name] for one in shared})

    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = {one.name: one.annotation for one in parameters}
    return typed
