"""The differences of two documents, as paths with what stood there and what stands there now."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.routing.document.canonical import canonical_json
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.field import shown_name

_NAMES = ("name", "arm")  # what tells the elements of a list apart: rules by name, mirrors by arm
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two documents differ. The texts are JSON; "" where that document has nothing there."""

    path: str
    before: str
    after: str


def differences(before: RouteDocument | None, after: RouteDocument | None) -> tuple[Difference, ...]:
    """Every difference, in the order of paths; None is the document of a model without a route.

    An element of a list with a name or an arm is compared with its namesake. Where only their order changed, the
    difference is the list of names: the order of rules and of fallbacks decides. What only one of two documents has is
    one difference; where there is but one document, it is taken apart.
    """
    if before is not None and after is not None:
        return tuple(_differences("", before.to_value(), after.to_value()))
    if after is not None:
        return tuple(Difference(path, "", text) for path, text in _apart("", after.to_value()))
    if before is not None:
        return tuple(Difference(path, text, "") for path, text in _apart("", before.to_value()))
    return ()


def _apart(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Each field with its text; a list stays whole."""
    if isinstance(value, Mapping) and value:
        for name in sorted(value):
            yield from _apart(f"{path}.{shown_name(name)}" if path else shown_name(name), value[name])
    else:
        yield path, _text(value)


def _differences(path: str, old: object, new: object) -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            deeper = f"{path}.{shown_name(name)}" if path else shown_name(name)
            yield from _differences(deeper, old.get(name, _ABSENT), new.get(name, _ABSENT))
        return
    names, other_names = _named(old), _named(new)
    if names is not None and other_names is not None:
        kept = [name for name in names if name in other_names]
        if kept != [name for name in other_names if name in names]:
            yield Difference(f"{path}[order]", _text(list(names)), _text(list(other_names)))
        for name in [*names, *(name for name in other_names if name not in names)]:
            yield from _differences(f"{path}[{name}]", names.get(name, _ABSENT), other_names.get(name, _ABSENT))
        return
    if _text(old) != _text(new):
        yield Difference(path, _text(old), _text(new))


def _named(value: object) -> Mapping[str, object] | None:
    """The elements of a list by what tells them apart, None where nothing does. An absent list is empty."""
    if value is _ABSENT:
        return {}
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    for key in _NAMES:
        named = {str(item[key]): item for item in value if isinstance(item, Mapping) and key in item}
        if len(named) == len(value):
            return named
    return None


def _text(value: object) -> str:
    return "" if value is _ABSENT else canonical_json(value)
