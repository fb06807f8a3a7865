"""The places at which a rule or a key looks: metadata, parameters, an input tensor, the request id, the method that was
called, the caller's tenant and identity."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.routing.document.attributes import Attributes
from gateway.routing.document.field import Field

Kind = Literal["metadata", "parameter", "input", "id", "method", "tenant", "identity"]
METHODS = ("ModelInfer", "ModelStreamInfer")  # those that are routed
Reader = Callable[[Attributes], "str | None"]
_METADATA_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")


@dataclass(frozen=True)
class SourceKind:
    """Holds how a kind of source is read, and who may look there.

    `match_field` is its field in a match, "" where no rule looks. `placeholder` stands for the name in texts, "" where
    the kind has only one source; `keys` tells whether a routing key may come from it.
    """

    read: Callable[[str], Reader]
    match_field: str = ""
    placeholder: str = ""
    keys: bool = False

    @property
    def named(self) -> bool:
        return self.placeholder != ""


def _metadata_reader(name: str) -> Reader:
    return lambda attributes: attributes.metadata(name)


def _parameter_reader(name: str) -> Reader:
    return lambda attributes: parameter_text(attributes.parameter(name))


def _input_reader(name: str) -> Reader:
    return lambda attributes: attributes.input_value(name)


def _id_reader(_name: str) -> Reader:
    return lambda attributes: attributes.request_id or None


def _optional_reader(attribute: str) -> Callable[[str], Reader]:
    """Returns what an edge does not know of its caller is absent or "", and matches nothing."""

    def read(attributes: Attributes) -> str | None:
        value = getattr(attributes, attribute, None)
        return value if isinstance(value, str) and value else None

    return lambda _name: read


SOURCES: dict[Kind, SourceKind] = {
    "metadata": SourceKind(_metadata_reader, "metadata", "NAME", keys=True),
    "input": SourceKind(_input_reader, "", "TENSOR", keys=True),
    "parameter": SourceKind(_parameter_reader, "parameters", "NAME", keys=True),
    "id": SourceKind(_id_reader, "id", keys=True),
    "method": SourceKind(_optional_reader("method"), "method"),
    "tenant": SourceKind(_optional_reader("tenant"), "tenant"),
    "identity": SourceKind(_optional_reader("identity"), "identity"),
}
MATCH_FIELDS: dict[str, Kind] = {kind.match_field: name for name, kind in SOURCES.items() if kind.match_field}
_KEYS: dict[str, Kind] = {str(name): name for name, kind in SOURCES.items() if kind.keys}
KEY_SOURCES = ", ".join(f"{name}:{SOURCES[kind].placeholder}".removesuffix(":") for name, kind in _KEYS.items())
KEY_PATTERN = "|".join(f"{name}:.+" if SOURCES[kind].named else name for name, kind in _KEYS.items())


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One thing to read of a request; `name` is "" where the kind has only one."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def metadata_name(field: Field) -> str:
    """The metadata name in lower case. Raises: InvalidArgument where gRPC could not carry it as text."""
    name = field.text(limit=128).lower()
    if not _METADATA_CHARACTERS.issuperset(name) or name.endswith("-bin"):
        raise field.refuse("a metadata name (letters, digits, '_', '.', '-'; not ending in -bin)")
    return name


def parse_source(field: Field) -> Source:
    """The source that a key names: metadata:NAME, input:TENSOR, parameter:NAME or id."""
    text = field.text(limit=256)
    word, colon, name = text.partition(":")
    kind = _KEYS.get(word)
    if kind is None or bool(name) is not SOURCES[kind].named or bool(colon) is not SOURCES[kind].named:
        raise field.refuse(KEY_SOURCES)
    return Source(kind, metadata_name(Field(name, field.path)) if kind == "metadata" else name)


def reader(source: Source) -> Reader:
    """A function from a request's attributes to the source's text, None where the request lacks it."""
    return SOURCES[source.kind].read(source.name)


def parameter_text(value: str | int | float | bool | None) -> str | None:
    """A parameter as rules and keys see it: true and false in lower case, numbers in their shortest form."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
