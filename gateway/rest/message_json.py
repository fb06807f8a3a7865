"""Messages of the gateway's protos as JSON: the names of the proto, every field, numbers as numbers.

That is Triton's way, and that of its clients. Protobuf's own JSON writes 64-bit integers as texts; they are read too.
A field that holds JSON as text, named `..._json`, is the value itself in JSON, under its name without the ending.

Source: protobuf, "ProtoJSON Format"; Triton's src/http_server.cc.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from gateway.api.naming import shown
from gateway.errors import InvalidArgument

JSON_ENDING: Final = "_json"
MOST_ENTRIES: Final = 4096  # of a map, or of a list of messages: protobuf's reader takes tens of microseconds for each


def plain(message: Message) -> dict[str, Any]:
    """Returns the message as JSON values. Messages that are not there are left out, as are alternatives not taken."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        name = field.name
        if is_map(field):
            fields[name] = {str(key): _plain_value(_value_of(field), one) for key, one in sorted(value.items())}
        elif field.is_repeated:
            fields[name] = [_plain_value(field, one) for one in value]
        elif holds_json(field):
            fields[shown_name(field)] = _parsed(value)
        else:
            fields[name] = _plain_value(field, value)
    return fields


def fill(message: Message, given: Mapping[str, Any]) -> None:
    """Sets the fields of the message that the JSON object gives. Raises: InvalidArgument, naming what does not fit."""
    try:
        ParseDict(_as_texts(message.DESCRIPTOR, given), message)
    except ParseError as error:
        raise InvalidArgument(f"the request does not fit: {_told(error)}") from None
    except (RecursionError, ValueError, TypeError, AttributeError):
        raise InvalidArgument("the request does not fit: a value is of another kind than its field") from None


def is_map(field: Any) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def holds_json(field: Any) -> bool:
    """Whether the field is a text that holds JSON."""
    is_text = field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
    return bool(is_text and field.name.endswith(JSON_ENDING))


def shown_name(field: Any) -> str:
    """Returns the name of the field in JSON."""
    return str(field.name.removesuffix(JSON_ENDING) if holds_json(field) else field.name)


def _value_of(field: Any) -> Any:
    assert field.message_type is not None
    return field.message_type.fields_by_name["value"]


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _parsed(text: str) -> Any:
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _as_texts(descriptor: Any, given: Any) -> Any:
    """Returns what was given with the values of fields that hold JSON as text again."""
    if not isinstance(given, Mapping):
        return given
    names = {shown_name(field): field for field in descriptor.fields if holds_json(field)}
    result: dict[str, Any] = {}
    for name, value in given.items():
        field = names.get(name)
        if field is not None:
            result[field.name] = orjson.dumps(value).decode() if value is not None else ""
            continue
        field = descriptor.fields_by_name.get(name)
        if field is None or holds_json(field):
            known = ", ".join(shown_name(one) for one in descriptor.fields)
            raise InvalidArgument(f"unknown field {shown(str(name))}: {known or 'none'} can be given")
        nested = None if is_map(field) else field.message_type
        if (nested is not None or is_map(field)) and isinstance(value, list | Mapping) and len(value) > MOST_ENTRIES:
            raise InvalidArgument(f"{shown(str(name))} has {len(value)} entries, at most {MOST_ENTRIES} can be given")
        if nested is None:
            result[name] = value
        elif isinstance(value, list):
            result[name] = [_as_texts(nested, one) for one in value]
        else:
            result[name] = _as_texts(nested, value)
    return result


def _told(error: ParseError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 and text.isprintable() else shown(text)
