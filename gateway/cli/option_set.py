"""Options that many commands have, said once: a set of them, and the command that adds sets to its own options."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Generic, TypeVar

import typer
from typer.core import TyperCommand

_T = TypeVar("_T")


class OptionSet(Generic[_T]):
    """Holds the options that are the parameters of `read`, and what it made of them for the command that runs."""

    def __init__(self, read: Callable[..., _T]) -> None:
        """`read` has the parameters of a command, and returns what the command is to know."""
        parser = typer.Typer(add_completion=False)
        parser.command()(read)
        command = typer.main.get_command(parser)
        self._read: Callable[..., _T] = command.callback or read
        self._made: ContextVar[_T] = ContextVar(read.__name__)
        self.params: Sequence[Any] = command.params

    def take(self, context: Any) -> None:
        """Takes the set's options out of the command's, which does not know them, and holds them until it ends."""
        given = {str(option.name): context.params.pop(option.name) for option in self.params}
        token = self._made.set(self._read(**given))
        context.call_on_close(lambda: self._made.reset(token))

    def get(self, default: _T | None = None) -> _T:
        """Returns what was given. Raises: LookupError outside of a command with this set, unless there is a default."""
        return self._made.get() if default is None else self._made.get(default)


class ExtendedCommand(TyperCommand):
    """Adds the options of `sets` to those of its function."""

    sets: ClassVar[tuple[OptionSet[Any], ...]] = ()

    def __init__(self, name: str | None, *, params: Sequence[Any], **settings: Any) -> None:
        self._sets = [one for one in self.sets if self.adds(one, params)]
        super().__init__(name, params=[*params, *(option for one in self._sets for option in one.params)], **settings)

    def adds(self, one: OptionSet[Any], params: Sequence[Any]) -> bool:
        """Returns whether a command with these options of its own has the set."""
        return True

    def invoke(self, ctx: Any) -> Any:
        for one in self._sets:
            one.take(ctx)
        return super().invoke(ctx)
