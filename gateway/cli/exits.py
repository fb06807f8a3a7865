"""Exit codes of the command line, and the error that carries one."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of the command line, each with its meaning for help and documentation."""

    meaning: str

    DONE = 0, "done"
    REFUSED = 1, "the server said no"  # its message was printed
    USAGE = 2, "usage"
    UNREACHABLE = 3, "not reachable"
    TIMED_OUT = 4, "timed out waiting"

    def __new__(cls, code: int, meaning: str) -> "Exit":
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made


class Failure(Exception):
    """Ends the command with `exit_code` and this text on standard error."""

    def __init__(self, exit_code: Exit, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
