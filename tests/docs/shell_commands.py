"""The shell commands of README and docs: every block of a page that has no language, or a shell's, is commands."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Generated from the commands themselves, and held to them.
_GENERATED = ("docs/reference/",)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHELLS = ("", "sh", "bash", "console", "shell")
# What a shell leaves out: a # after a space, outside of quotes.
_COMMENT = re.compile(r"""^((?:[^'"#]|'[^']*'|"[^"]*"|(?<=\S)\#)*?)\s+\#.*$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """A command as it stands on a page, comments left out."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def pages() -> list[str]:
    """README and every page below docs."""
    below = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", *(page for page in below if not page.startswith(_GENERATED))]


def commands_of(text: str) -> list[str]:
    """The commands in the blocks of a text. A line that begins with a space goes on with the one before it."""
    return [
        _COMMENT.sub(r"\1", command).strip()
        for language, block in _BLOCK.findall(text)
        if language in _SHELLS
        for command in re.split(r"^(?=[^\s])", block, flags=re.MULTILINE)
        if command.strip() and not command.startswith(("#", "}"))
    ]


@cache
def shell_commands() -> tuple[ShellCommand, ...]:
    return tuple(
        ShellCommand(page, command) for page in pages() for command in commands_of((ROOT / page).read_text("utf-8"))
    )
