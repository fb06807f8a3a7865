"""Documents as text: JSON and YAML in, plain data out, with nothing in between that could mean two things.

YAML is read by the rules of its 1.2 core schema, cut down to what JSON can say and to what other readers agree on: true
and false are flags, 12 and 1.5 are numbers; `on`, `no`, `2027-01-01`, `010` and `1e3` are text. Anchors, aliases, tags
and merge keys are refused. Text that is JSON as a whole is read as JSON.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from gateway.errors import InvalidArgument
from gateway.routing.document.document import SIZE_LIMIT_BYTES, RouteDocument, parse
from gateway.routing.document.field import DEPTH_LIMIT, shown

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser in C is missing from some builds
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None, "~": None, "": None}
_DOCUMENT_LIMIT = 1000
ROUTE_SUFFIXES = (".yaml", ".yml", ".json")  # of the files of a directory that hold documents


def parse_json(text: str | bytes) -> RouteDocument:
    """The document in JSON text. Raises: InvalidArgument."""
    return parse(read_json(text))


def parse_yaml(text: str | bytes, *, loader: Any = LOADER) -> list[RouteDocument]:
    """Every document of YAML text, in order; JSON is YAML too.

    Raises: InvalidArgument, also where there is no document, or two of one model.
    """
    values = read_yaml(text, loader=loader)
    if not values:
        raise InvalidArgument("document: the text is empty")
    documents: list[RouteDocument] = []
    for number, value in enumerate(values, start=1):
        try:
            document = parse(value)
        except InvalidArgument as error:
            raise InvalidArgument(f"document {number}: {error}" if len(values) > 1 else str(error)) from None
        if any(document.model == other.model for other in documents):
            raise InvalidArgument(f"document {number}: there is another document of model {document.model!r}")
        documents.append(document)
    return documents


def read_json(text: str | bytes, *, limit_bytes: int = SIZE_LIMIT_BYTES) -> object:
    """Plain data. Raises: InvalidArgument for what is not strict JSON, names something twice, or is too large."""
    decoded = _decoded(text, limit_bytes)
    try:
        # The standard library's reader, because others take a name that is given twice without a word.
        return json.loads(
            decoded, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise InvalidArgument(f"document: nested deeper than {DEPTH_LIMIT} levels") from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"document: line {error.lineno}, column {error.colno}: {error.msg}") from None


def json_fault(text: str) -> str:
    """Returns why text that begins like JSON is read as YAML (a comma too many, say); "" where it is not."""
    if not text.lstrip().startswith("{"):
        return ""
    try:
        read_json(text)
    except InvalidArgument as error:
        return str(error).removeprefix("document: ")
    return ""


def read_yaml(text: str | bytes, *, loader: Any = LOADER) -> list[object]:
    """Plain data of every document that is not empty. Raises: InvalidArgument like `read_json`."""
    decoded = _decoded(text, SIZE_LIMIT_BYTES)
    if decoded.lstrip().startswith("{"):
        try:
            return [read_json(decoded)]
        except InvalidArgument:
            pass  # a mapping in YAML's flow style, or wrong in both notations
    values: list[object] = []
    try:
        events = iter(yaml.parse(decoded, Loader=loader))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                value = _value(next(events), events, depth=0)
                if value is not None:
                    values.append(value)
                if len(values) > _DOCUMENT_LIMIT:
                    raise InvalidArgument(f"document: more than {_DOCUMENT_LIMIT} documents")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise InvalidArgument(f"document: {at}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidArgument(f"document: {str(error).splitlines()[0]}") from None
    return values


def _decoded(text: str | bytes, limit_bytes: int) -> str:
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > limit_bytes:
            raise InvalidArgument(f"document: {len(raw)} bytes, at most {limit_bytes} are allowed")
        return raw.decode()
    except UnicodeError:
        raise InvalidArgument("document: the text is not UTF-8") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidArgument(f"document: the name {shown(name)} is given twice in one mapping")
            seen.add(name)
    return mapping


def _no_constant(text: str) -> object:
    raise InvalidArgument(f"document: {text} is not a finite number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidArgument(f"document: {shown(text)} is not a finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:
        raise InvalidArgument(f"document: {shown(text)} has too many digits")
    return int(text)


def _value(event: Any, events: Iterator[Any], *, depth: int) -> object:
    at = f"line {event.start_mark.line + 1}"
    if depth > DEPTH_LIMIT:
        raise InvalidArgument(f"document: {at}: nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise InvalidArgument(f"document: {at}: anchors and aliases are not allowed")
    if event.tag is not None:
        raise InvalidArgument(f"document: {at}: the tag {shown(event.tag)} is not allowed")
    match event:
        case yaml.ScalarEvent():
            return _scalar(event.value) if event.implicit[0] else event.value
        case yaml.SequenceStartEvent():
            items: list[object] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(_value(item, events, depth=depth + 1))
            return items
    mapping: dict[str, object] = {}
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        name = key.value if isinstance(key, yaml.ScalarEvent) and key.anchor is None and key.tag is None else None
        at = f"line {key.start_mark.line + 1}"
        if name is None or name == "<<":
            raise InvalidArgument(f"document: {at}: a name must be plain text")
        if name in mapping:
            raise InvalidArgument(f"document: {at}: the name {shown(name)} is given twice in one mapping")
        mapping[name] = _value(next(events), events, depth=depth + 1)
    return mapping


def _scalar(text: str) -> object:
    """A plain scalar: a flag, a number as JSON writes it, nothing, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _whole(text)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    return text
