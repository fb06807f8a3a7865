"""Manifests: the list of a version's files, as `sha256sum` prints it.

The text is one line `<sha256>  <name>` per file, sorted by name; its own SHA-256 is the digest of the version. Hence
`LC_ALL=C sha256sum $(find * -type f | LC_ALL=C sort) | sha256sum`, run in a version directory, prints the digest, and
`sha256sum -c manifest.sha256` checks a copy.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from loaders.errors import DigestMismatch, UnsafeSource
from loaders.loader import FileEntry

FILENAME = "manifest.sha256"
MAX_BYTES = 4 << 20

# One part of a file's name. A name that begins with a dot is not content (.DS_Store, .gitkeep) and is passed over.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,199}\Z", re.ASCII)
_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>[^\r\n]+)\Z", re.ASCII)


def check_part(part: str) -> None:
    """Checks that `part` may be a part of a file's name. Raises: UnsafeSource, if not."""
    if not _PART.match(part):
        shown = ascii(part[:80])
        raise UnsafeSource(
            f"the name {shown} is refused: letters, digits and ._+=@- only, beginning with a letter, digit or _, "
            f"at most 200 characters"
        )


def render(files: Iterable[FileEntry]) -> str:
    """Returns the manifest of these files."""
    return "".join(f"{entry.sha256}  {entry.name}\n" for entry in sorted(files, key=lambda entry: entry.name))


def digest_of(files: Iterable[FileEntry]) -> str:
    """Returns the digest of a version that consists of these files."""
    return sha256(render(files).encode()).hexdigest()


def parse(text: str) -> dict[str, str]:
    """Returns SHA-256 by file name, from a manifest (the output of `sha256sum`; empty lines are passed over).

    Raises: UnsafeSource, naming the line.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise UnsafeSource(f"{FILENAME} line {number} is not '<sha256>  <name>'")
        name = match["name"].removeprefix("./")
        for part in name.split("/"):
            check_part(part)
        if name in digests:
            raise UnsafeSource(f"{FILENAME} line {number} names {name!r} a second time")
        digests[name] = match["sha256"].lower()
    return digests


def compare(expected: Mapping[str, str], files: Iterable[FileEntry]) -> None:
    """Checks that the files are exactly those of the manifest.

    Raises: DigestMismatch, naming the first file that is missing, unlisted or different.
    """
    actual = {entry.name: entry.sha256 for entry in files}
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise DigestMismatch(f"{FILENAME} lists {name!r}, which is not there")
        if name not in expected:
            raise DigestMismatch(f"{name!r} is not listed in {FILENAME}")
        if expected[name] != actual[name]:
            raise DigestMismatch(f"{name!r} has SHA-256 {actual[name]}, but {FILENAME} says {expected[name]}")
