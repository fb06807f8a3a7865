"""Route documents in files: one, several in one, a directory of them, standard input."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import say
from gateway.errors import InvalidArgument
from gateway.routing.document.caution import fraction_cautions
from gateway.routing.document.notation import ROUTE_SUFFIXES, json_fault, parse_yaml, read_yaml

File = Annotated[
    Path,
    typer.Option(
        "-f", "--file", help="YAML or JSON, several documents allowed, or a directory of them; - reads standard input."
    ),
]


@dataclass(frozen=True, slots=True)
class Document:
    """A checked document as the server takes it, and the file that it comes from."""

    model: str
    text: str
    origin: str


def read_documents(path: Path) -> list[Document]:
    """Returns every document of the file, or of the directory and those below it, in order of the files' names.

    Raises: Failure (a file cannot be read or holds what is no route; two documents of one model; none at all).
    """
    documents: list[Document] = []
    for file in _files(path):
        try:
            text = _text(file)
            parsed = parse_yaml(text)
        except InvalidArgument as error:
            raise Failure(Exit.USAGE, f"{file}: {error}") from None
        documents += [Document(document.model, document.to_json(), str(file)) for document in parsed]
        _warn(file, text)
    origins: dict[str, str] = {}
    for one in documents:
        if one.model in origins:
            raise Failure(Exit.USAGE, f"{one.origin}: model {one.model!r} has a document in {origins[one.model]} too")
        origins[one.model] = one.origin
    return documents


def read_document(path: Path) -> Document:
    """Returns the only document of the file. Raises: Failure."""
    documents = read_documents(path)
    if len(documents) != 1:
        raise Failure(Exit.USAGE, f"{path}: {len(documents)} documents, exactly one is wanted")
    return documents[0]


def _warn(file: Path, text: str) -> None:
    """Warns of what is lost when a file becomes documents: the way in which it was written."""
    if fault := json_fault(text):
        say(f"gateway: warning: {file}: read as YAML, as it is no JSON: {fault}")
    for value in read_yaml(text):
        for sentence in fraction_cautions(value):
            say(f"gateway: warning: {file}: {sentence}")


def _files(path: Path) -> Sequence[Path]:
    if str(path) == "-" or not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in ROUTE_SUFFIXES and file.is_file())
    if not files:
        raise Failure(Exit.USAGE, f"{path}: no file that ends in {', '.join(ROUTE_SUFFIXES)}")
    return files


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {getattr(error, 'strerror', error)}") from None


def write_whole(path: Path, text: str) -> None:
    """Writes the whole text, or leaves the file as it was. Raises: Failure."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot write {path}: {error}") from None
