"""Paths to endpoints: an `EndpointTable` over templates such as `/v2/models/{model}/infer`."""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.rest.endpoint import Endpoint, EndpointMatch
from gateway.rest.http_refusal import HttpRefusal

_NAME: Final = "{"


class _Node:
    """What follows one part of a path: fixed texts, and one name with the texts that may end its part."""

    __slots__ = ("endpoints", "fixed", "named")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.named: dict[str, _Node] = {}  # by what follows the name within its part, such as `:predict`
        self.endpoints: dict[str, Endpoint] = {}


class PathTable:
    """Finds endpoints by method and path. Fixed parts go before names; a name takes one part and is never empty."""

    def __init__(self, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        """Raises: ValueError (a method and path are there twice under other names)."""
        self._root = _Node()
        self._endpoints = tuple(endpoints.values())
        for (method, template), endpoint in endpoints.items():
            node = self._root
            for part in _parts(template):
                if part.startswith(_NAME):
                    node = node.named.setdefault(part.partition("}")[2], _Node())
                else:
                    node = node.fixed.setdefault(part, _Node())
            if method in node.endpoints:
                raise ValueError(f"{method} {template} is there twice")
            node.endpoints[method] = endpoint

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        parts = _parts(path)
        allowed: set[str] = set()
        for node, names in _walk(self._root, parts, ()):
            endpoint = node.endpoints.get("GET" if method == "HEAD" else method)
            if endpoint is not None:
                try:
                    return EndpointMatch(endpoint, tuple(unquote_to_bytes(name).decode() for name in names))
                except UnicodeDecodeError:
                    return HttpRefusal(400, "the path has a name that is not UTF-8")
            allowed.update(node.endpoints)
        if not allowed:
            return HttpRefusal(404, f"nothing is served at {path[:128]}")
        if "GET" in allowed:
            allowed.add("HEAD")
        methods = ", ".join(sorted(allowed))
        return HttpRefusal(405, f"{method[:16]} is not possible here: {methods}", ((b"allow", methods.encode()),))

    def permissions(self) -> Iterable[str]:
        return (endpoint.permission for endpoint in self._endpoints)


def _parts(path: str) -> list[str]:
    """Returns the parts between the slashes; one slash at the end makes no part."""
    return path.removeprefix("/").removesuffix("/").split("/")


def _walk(node: _Node, parts: list[str], names: tuple[str, ...]) -> Iterable[tuple[_Node, tuple[str, ...]]]:
    """Yields every node that the parts lead to, those by fixed parts first, with the names on the way."""
    if not parts:
        if node.endpoints:
            yield node, names
        return
    part, rest = parts[0], parts[1:]
    fixed = node.fixed.get(part)
    if fixed is not None:
        yield from _walk(fixed, rest, names)
    # The longest ending first: `{model}:predict` before `{model}`.
    for ending in sorted(node.named, key=len, reverse=True):
        if part.endswith(ending) and len(part) > len(ending):
            yield from _walk(node.named[ending], rest, (*names, part[: len(part) - len(ending)]))
