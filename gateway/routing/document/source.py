"""Where a rule or a key looks: metadata, parameters, an input tensor, the request id, the method that was called, the
caller's tenant and identity."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.routing.document.attributes import Attributes
from gateway.routing.document.field import Field

Kind = Literal["metadata", "parameter", "input", "id", "method", "tenant", "identity"]
METHODS = ("ModelInfer", "ModelStreamInfer")  # those that are routed
Reader = Callable[[Attributes], "str | None"]
_METADATA_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")


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
    kind, colon, name = text.partition(":")
    if text == "id":
        return Source("id")
    if colon and name:
        match kind:
            case "metadata":
                return Source("metadata", metadata_name(Field(name, field.path)))
            case "input" | "parameter":
                return Source(kind, name)
    raise field.refuse("metadata:NAME, input:TENSOR, parameter:NAME or id")


def reader(source: Source) -> Reader:
    """A function from a request's attributes to the source's text, None where the request lacks it."""
    name = source.name
    match source.kind:
        case "metadata":
            return lambda attributes: attributes.metadata(name)
        case "parameter":
            return lambda attributes: parameter_text(attributes.parameter(name))
        case "input":
            return lambda attributes: attributes.input_value(name)
        case "id":
            return lambda attributes: attributes.request_id or None
        case "method" | "tenant" | "identity":
            return _optional_reader(source.kind)


def parameter_text(value: str | int | float | bool | None) -> str | None:
    """A parameter as rules and keys see it: true and false in lower case, numbers in their shortest form."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _optional_reader(kind: str) -> Reader:
    def read(attributes: Attributes) -> str | None:
        # An edge that authenticates nobody has no such attributes: what is not known matches nothing.
        value = getattr(attributes, kind, None)
        return value if isinstance(value, str) and value else None

    return read
