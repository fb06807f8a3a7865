"""A model's configuration as its author wrote it: config.pbtxt, or the JSON that a client sends with a load.

Both become the same message, together with the fields that the gateway does not know or does not act on: a warning
names these fields to the author who set them.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format, text_format

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.pb import inference_pb2

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NAMED = 50  # unknown fields that a warning names

# The fields that the gateway acts on; a message that is named alone stands for all its fields. Every other field of
# the protocol that an author sets is named in a warning, also one that a later protocol adds.
ACTED_ON = frozenset(
    {
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "default_model_filename",
        "version_policy",
        *(f"input.{field}" for field in ("name", "data_type", "format", "dims", "reshape", "optional")),
        *(f"output.{field}" for field in ("name", "data_type", "dims", "reshape", "label_filename")),
        *(f"instance_group.{field}" for field in ("name", "count", "kind", "gpus")),  # count: a warning of its own
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.default_queue_policy",
        "optimization.graph.level",
        "optimization.execution_accelerators",
        "parameters",
        "model_warmup",
        *(f"ensemble_scheduling.step.{field}" for field in ("model_name", "model_version", "input_map", "output_map")),
        "response_cache.enable",
    }
)
_TOKEN = re.compile(
    r"""[ \t\r\n\v\f]+ | \#[^\n]*
    | (?P<text> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
    | (?P<mark> [{}<>\[\]:,;])
    | (?P<word> [^\s{}<>\[\]:,;"'\#]+)""",
    re.VERBOSE,
)
MessageType = Any  # a protobuf Descriptor: the stubs know two classes of that name, one for each implementation
_NAME = re.compile(r"[A-Za-z_\[]")
_CLOSING = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Holds a configuration as written: the message, the field paths it set, and what to warn about."""

    message: inference_pb2.ModelConfig
    fields: frozenset[str]
    warnings: tuple[str, ...]

    def sets(self, field: str) -> bool:
        """Returns whether the author wrote the field, even with its default value."""
        return field in self.fields


EMPTY = ConfigSource(inference_pb2.ModelConfig(), frozenset(), ())


def parse_text(text: bytes, origin: str = "config.pbtxt") -> ConfigSource:
    """Returns the configuration that a config.pbtxt holds.

    Raises: FailedPrecondition naming line, column and what is wrong.
    """
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"{len(text)} bytes exceed the limit of {MAX_BYTES}")
        source = text.decode("utf-8-sig")
        fields = _Fields(source)
        message = inference_pb2.ModelConfig()
        text_format.Parse(fields.known(), message)
    except (text_format.ParseError, ValueError) as error:
        raise FailedPrecondition(f"{origin}: {str(error)[:500]}") from error
    return _judged(message, frozenset(fields.paths), origin)


def parse_json(text: str) -> ConfigSource:
    """Returns the configuration in the `config` parameter of a load; it replaces config.pbtxt as a whole.

    Raises: InvalidArgument naming what is wrong.
    """
    origin = "config"
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"{len(text)} characters exceed the limit of {MAX_BYTES}")
        _check_nesting(text)
        document = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        if not isinstance(document, dict):
            raise ValueError(f"must be a JSON object, not {type(document).__name__}")
        paths: set[str] = set()
        message = inference_pb2.ModelConfig()
        json_format.ParseDict(_known_json(document, message.DESCRIPTOR, paths), message)
    except (json_format.ParseError, ValueError) as error:
        raise InvalidArgument(f"{origin}: {str(error)[:500]}") from error
    return _judged(message, frozenset(paths), origin)


def _judged(message: inference_pb2.ModelConfig, paths: frozenset[str], origin: str) -> ConfigSource:
    unknown = [ascii(path[1:81])[1:-1] for path in sorted(paths) if path.startswith("?")]
    if len(unknown) > MAX_NAMED:
        unknown[MAX_NAMED:] = [f"and {len(unknown) - MAX_NAMED} more"]
    idle = without_effect(path for path in paths if not path.startswith("?"))
    warnings = []
    if unknown:
        warnings.append(f"{origin}: unknown fields, not acted on: {', '.join(unknown)}")
    if idle:
        warnings.append(f"{origin}: fields without effect here: {', '.join(idle)}")
    if any(group.count > 1 for group in message.instance_group):
        warnings.append(f"{origin}: instance_group.count: one session of a version serves all requests of a worker")
    return ConfigSource(message, frozenset(path for path in paths if not path.startswith("?")), tuple(warnings))


def without_effect(paths: Iterable[str]) -> list[str]:
    """Returns the paths of known fields that the gateway ignores; a wholly ignored message gives its own path only."""
    idle: set[str] = set()
    for path in sorted(paths):
        parts = path.split(".")
        above = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        leads = any(entry.startswith(f"{path}.") for entry in ACTED_ON)
        if not leads and not above & ACTED_ON and not above & idle:
            idle.add(path)
    return sorted(idle)


# ---- text format: only field names are read here; protobuf's own parser reads the values ----


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def _tokens(source: str) -> Iterator[_Token]:
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            line = source.count("\n", 0, position) + 1
            raise ValueError(f"line {line}: unexpected character {source[position]!r}")
        if match.lastgroup is not None:
            yield _Token(match.group(), position, match.end())
        position = match.end()


class _Fields:
    """Reads the field paths out of a text-format message, and the positions of its unknown fields.

    protobuf's parser could skip unknown fields, but it accepts less syntax than Triton's and would not name them.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = deque(_tokens(source))
        self._end = 0  # of the last token taken
        self._unknown: list[tuple[int, int]] = []
        self.paths: set[str] = set()

    def known(self) -> str:
        """Returns the text with blanks in place of unknown fields, so that lines and columns stay."""
        self._message(inference_pb2.ModelConfig.DESCRIPTOR, "", "", 0)
        text, position = [], 0
        for start, end in self._unknown:
            text += [self._source[position:start], re.sub(r"[^\n]", " ", self._source[start:end])]
            position = end
        return "".join((*text, self._source[position:]))

    def _peek(self) -> str:
        return self._tokens[0].text if self._tokens else ""

    def _next(self) -> str:
        if not self._tokens:
            return ""
        token = self._tokens.popleft()
        self._end = token.end
        return token.text

    def _message(self, message: MessageType | None, prefix: str, closing: str, depth: int) -> None:
        """Reads entries up to the closing mark; inside an unknown field (no message type) names are ignored."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        while True:
            start = self._tokens[0].start if self._tokens else 0
            token = self._next()
            if token == closing:
                return
            if not token:
                raise ValueError(f"{prefix or 'message'}: {closing!r} is missing")
            if token not in (",", ";"):
                self._entry(message, self._extension() if token == "[" else token, prefix, depth, start)

    def _entry(self, message: MessageType | None, name: str, prefix: str, depth: int, start: int) -> None:
        path = f"{prefix}.{name}" if prefix else name
        field = message.fields_by_name.get(name) if message is not None else None
        if message is not None:
            self.paths.add(path if field is not None else f"?{path}")
        if self._peek() == ":":
            self._next()
        self._value(None if field is None else field.message_type, path, depth + 1)
        if message is not None and field is None and _NAME.match(name):
            self._unknown.append((start, self._end))

    def _value(self, message: MessageType | None, path: str, depth: int) -> None:
        token = self._next()
        if token in _CLOSING:
            self._message(message, path, _CLOSING[token], depth)
        elif token == "[":
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
            while self._peek() not in ("]", ""):
                if self._peek() in (",", ";"):
                    self._next()
                else:
                    self._value(message, path, depth + 1)
            if not self._next():
                raise ValueError(f"{path}: ']' is missing")
        elif token[:1] in ('"', "'"):
            while self._peek()[:1] in ('"', "'") and self._peek():  # adjacent strings form one value
                self._next()

    def _extension(self) -> str:
        name = ""
        while (token := self._next()) not in ("]", ""):
            name += token
        return f"[{name}]"


# ---- JSON ----


def _known_json(
    document: Mapping[str, Any], message: MessageType, paths: set[str], prefix: str = ""
) -> dict[str, object]:
    """Returns the document without its unknown fields; adds the path of every field to `paths`."""
    by_name = {**{field.json_name: field for field in message.fields}, **dict(message.fields_by_name)}
    known: dict[str, object] = {}
    for name, value in document.items():
        field = by_name.get(name)
        path = ".".join(filter(None, (prefix, field.name if field is not None else name)))
        paths.add(path if field is not None else f"?{path}")
        if field is not None:
            known[name] = value if field.message_type is None else _known_value(value, field.message_type, paths, path)
    return known


def _known_value(value: Any, message: MessageType, paths: set[str], path: str) -> object:
    if isinstance(value, list):
        return [_known_value(entry, message, paths, path) for entry in value]
    if not isinstance(value, dict):
        return value
    if not message.GetOptions().map_entry:
        return _known_json(value, message, paths, path)
    inner = message.fields_by_name["value"].message_type
    if inner is None:
        return value
    return {key: _known_value(entry, inner, paths, f"{path}.value") for key, entry in value.items()}


def _check_nesting(text: str) -> None:
    """Refuses deep nesting before the parser recurses into it; brackets inside strings do not count."""
    depth = 0
    for bracket in re.findall(r'"(?:\\.|[^"\\])*"|[\[\]{}]', text):
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"duplicate key {name!r}")
        unique[name] = value
    return unique


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")
