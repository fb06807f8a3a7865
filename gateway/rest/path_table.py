"""Paths to what is served there, over templates such as `/v2/models/{model}/infer`; an `EndpointTable` of them."""

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from gateway.api.naming import shown
from gateway.errors import Code
from gateway.rest.endpoint import Endpoint, EndpointMatch
from gateway.rest.http_call import Fields
from gateway.rest.http_refusal import CODE_FIELD, HttpRefusal

_NAME: Final = "{"


T = TypeVar("T")


class _Node(Generic[T]):
    """What follows one part of a path: fixed texts, and one name with the texts that may end its part."""

    __slots__ = ("fixed", "named", "served")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node[T]] = {}
        self.named: dict[str, _Node[T]] = {}  # by what follows the name within its part, such as `:predict`
        self.served: dict[str, T] = {}  # by method


class PathTree(Generic[T]):
    """Finds what is served by method and path. Fixed parts go before names; a name takes one part that is not empty."""

    def __init__(self, served: Mapping[tuple[str, str], T]) -> None:
        """Raises: ValueError (a method and path are there twice under other names)."""
        self._root: _Node[T] = _Node()
        for (method, template), one in served.items():
            node = self._root
            for part in _parts(template):
                if part.startswith(_NAME):
                    node = node.named.setdefault(part.partition("}")[2], _Node())
                else:
                    node = node.fixed.setdefault(part, _Node())
            if method in node.served:
                raise ValueError(f"{method} {template} is there twice")
            node.served[method] = one

    def find(self, method: str, path: str) -> tuple[T, tuple[str, ...]] | HttpRefusal:
        """Returns what serves the method at the path, and the names in the path, decoded; or 404, 405, 400."""
        allowed: set[str] = set()
        for node, names in _walk(self._root, _parts(path), ()):
            one = node.served.get("GET" if method == "HEAD" else method)
            if one is not None:
                try:
                    return one, tuple(unquote_to_bytes(name).decode() for name in names)
                except UnicodeDecodeError:
                    return HttpRefusal(400, "the path has a name that is not UTF-8", _told(Code.INVALID_ARGUMENT))
            allowed.update(node.served)
        if not allowed:
            return HttpRefusal(404, f"nothing is served at {shown(path)}", _told(Code.NOT_FOUND))
        if "GET" in allowed:
            allowed.add("HEAD")
        methods = ", ".join(sorted(allowed))
        fields = ((b"allow", methods.encode()), *_told(Code.UNIMPLEMENTED))
        return HttpRefusal(405, f"{shown(method)} is not possible here: {methods}", fields)


class PathTable:
    """The `EndpointTable` of these endpoints."""

    def __init__(self, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        """Raises: ValueError, as `PathTree`."""
        self._tree = PathTree(endpoints)
        self._permissions = tuple(endpoint.permission for endpoint in endpoints.values())

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        match = self._tree.find(method, path)
        return match if isinstance(match, HttpRefusal) else EndpointMatch(*match)

    def permissions(self) -> Iterable[str]:
        return self._permissions


def _told(code: Code) -> Fields:
    return ((CODE_FIELD, code.name.encode()),)


def _parts(path: str) -> list[str]:
    """Returns the parts between the slashes; one slash at the end makes no part."""
    return path.removeprefix("/").removesuffix("/").split("/")


def _walk(node: _Node[T], parts: list[str], names: tuple[str, ...]) -> Iterable[tuple[_Node[T], tuple[str, ...]]]:
    """Yields every node that the parts lead to, those by fixed parts first, with the names on the way."""
    if not parts:
        if node.served:
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
            return  # what ends so is that and nothing else, whatever the method
