"""Files that commands write because an option names them: refused before the work, and told where they fail."""

from pathlib import Path

from gateway.cli.exits import Exit, Failure


def check_place(option: str, path: Path | None) -> None:
    """Returns if a file can be written there, as far as one can tell before. Raises: Failure naming the option."""
    if path is None:
        return
    if path.is_dir():
        raise Failure(Exit.USAGE, f"{option} is {str(path)!r}, which is a folder: name a file")
    if not path.absolute().parent.is_dir():
        raise Failure(Exit.USAGE, f"{option} is {str(path)!r}, but there is no folder {str(path.absolute().parent)!r}")


def write_file(option: str, path: Path, text: str) -> None:
    """Writes the text. Raises: Failure naming the option and why."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(Exit.REFUSED, f"{option}: {str(path)!r} cannot be written: {error.strerror}") from None
