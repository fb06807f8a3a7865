"""What names a repository: a path or a URI; and what may name a directory in it."""

import os
import re
from urllib.parse import quote, unquote_to_bytes

from loaders.errors import UnsafeSource, UnsupportedUri

_SCHEME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9+.-]*)://")
_MODELS = re.compile(r"(?P<name>models):/", re.IGNORECASE)  # MLflow's URIs name no server
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_MAX_LENGTH = 4096


def split_uris(text: str) -> tuple[str, ...]:
    """Returns the paths and URIs that are written with commas between them. Raises: UnsupportedUri (an empty one)."""
    uris = tuple(part.strip() for part in text.split(","))
    if "" in uris:
        raise UnsupportedUri("an empty path: name a path or a URI, several with commas between them")
    return uris


def has_scheme(uri: str) -> bool:
    """Whether it is a URI, and no plain path."""
    return (_SCHEME.match(uri) or _MODELS.match(uri)) is not None


def scheme_of(uri: str) -> str:
    """Returns the scheme in lower case; "file" for a plain path."""
    match = _SCHEME.match(uri) or _MODELS.match(uri)
    return match["name"].lower() if match else "file"


def local_path(uri: str) -> str:
    """Returns the absolute path that a plain path or file:// URI means; percent-escapes of a URI are decoded once.

    Raises: UnsupportedUri.
    """
    if len(uri) > _MAX_LENGTH:
        raise UnsupportedUri(f"the URI has {len(uri)} characters; at most {_MAX_LENGTH}")
    if scheme_of(uri) != "file":
        raise UnsupportedUri(f"{uri[:80]!a} is not a path or a file:// URI")
    path = _decoded(uri) if _SCHEME.match(uri) else uri
    if "\0" in path or not path:
        raise UnsupportedUri("the path is empty or holds a NUL")
    return os.path.abspath(path)


def canonical_path(uri: str) -> str:
    """Returns the absolute path; as a file:// URI where a comma in it would end it. Raises: UnsupportedUri."""
    path = local_path(uri)
    return f"file://{quote(path)}" if "," in path else path


def check_directory_name(name: str) -> None:
    """Checks that `name` may be the directory of a model or a version. Raises: UnsafeSource, if not."""
    if not _PART.match(name):
        raise UnsafeSource(
            f"the directory name {name[:80]!a} is refused: letters, digits and ._- only, beginning with a "
            f"letter or digit, at most 128 characters"
        )


def _decoded(uri: str) -> str:
    rest = _SCHEME.sub("", uri, count=1)
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise UnsupportedUri(f"the host {host[:80]!a} of the file:// URI is not this machine")
    if "?" in path or "#" in path:
        raise UnsupportedUri("a file:// URI takes no query and no fragment")
    try:
        return unquote_to_bytes(slash + path).decode("utf-8")
    except UnicodeError:
        raise UnsupportedUri("the path is not UTF-8") from None
