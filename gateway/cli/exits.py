"""Exit codes of the command line, and the error that carries one."""

from enum import IntEnum


class Exit(IntEnum):
    """What the shell is told."""

    DONE = 0
    REFUSED = 1  # the server said no; its message was printed
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4  # waiting took longer than it was given


class Failure(Exception):
    """The command ends with `exit_code` and this text on standard error."""

    def __init__(self, exit_code: Exit, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
