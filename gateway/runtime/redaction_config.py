"""The `redaction` section of the configuration file: what must not be in the prediction log."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import InvalidArgument
from gateway.records.worker.redaction_rule import InputMode, RedactionAction, RedactionRule
from gateway.runtime.option import ENVIRONMENT_PREFIX

SECTION: Final = "redaction"
KEY_VARIABLE: Final = ENVIRONMENT_PREFIX + "REDACTION_KEY"
LEAST_KEY_BYTES: Final = 16
_FIELDS: Final = ("revision", "inputs", "listed", "key-id", "key-file", "models")
_ACTIONS: Final = "drop, null, hash, {bucket: [rising numbers]} or {features: {index: action}}"
_ID: Final = "1 to 32 of the characters A-Z a-z 0-9 . _ -"


@dataclass(frozen=True, slots=True, repr=False)
class RedactionConfig:
    """The section, checked, as JSON that processes hand to each other; `document` is "" where there is none.

    The key is a secret: it is in no dump, no message and no `repr`.
    """

    document: str = ""
    key: str = field(default="", repr=False)  # hex

    def __repr__(self) -> str:
        return f"RedactionConfig({self.document!r})"

    @property
    def rules(self) -> tuple[RedactionRule, ...]:
        models = self.value().get("models", {})
        return tuple(rule for model, tensors in models.items() for rule in _model_rules(model, tensors))

    def with_key(self, key: bytes, source: str) -> "RedactionConfig":
        """Returns the configuration with its key.

        Raises: InvalidArgument (a key too short to keep a hash from being guessed).
        """
        key = key.strip()
        if len(key) < LEAST_KEY_BYTES:
            raise InvalidArgument(
                f"{source}: the key of redaction has {len(key)} bytes, at least {LEAST_KEY_BYTES} are allowed"
            )
        return RedactionConfig(self.document, key.hex())

    def proven(self) -> "RedactionConfig":
        """Returns the configuration with the key that its file holds.

        Raises: InvalidArgument (a file that cannot be read, or no key where a rule hashes).
        """
        path = str(self.value().get("key-file", ""))
        config = self
        if path:
            try:
                config = self.with_key(Path(path).read_bytes(), f"redaction.key-file {path!r}")
            except OSError as error:
                raise InvalidArgument(f"redaction.key-file {path!r} cannot be read: {error.strerror}") from None
        if not config.key and any(rule.action is RedactionAction.HASH for rule in self.rules):
            raise InvalidArgument(f"redaction: hash needs a key in the file key-file or in {KEY_VARIABLE}")
        return config

    def dump(self) -> dict[str, object]:
        """Returns the section for people; without the key."""
        return self.value() | ({"key": "***"} if self.key else {})

    def value(self) -> dict[str, Any]:
        """Returns the section as plain data."""
        return dict(json.loads(self.document)) if self.document else {}


def parse_redaction(value: object, key: str, source: str = "file, redaction") -> RedactionConfig:
    """Returns the section of the file, with the key of the environment; without a section nothing is redacted.

    Raises: InvalidArgument naming the place, the value and what is allowed.
    """
    if value is None:
        return RedactionConfig()
    section = {str(name).replace("_", "-"): given for name, given in _mapping(value, source, "fields").items()}
    for name in section:
        if name not in _FIELDS:
            raise InvalidArgument(f"{source}: there is no {name!r}, allowed: {', '.join(_FIELDS)}")
    revision = section.get("revision", 0)
    if isinstance(revision, bool) or not isinstance(revision, int) or not 0 <= revision < 2**31:
        raise _refusal(f"{source}.revision", revision, "a whole number from 0 to 2147483647")
    mode = section.get("inputs", "all")
    if mode not in [known.value for known in InputMode]:
        raise _refusal(f"{source}.inputs", mode, "all, listed, none")
    _check_texts(section, source)
    listed = _listed(section.get("listed", {}), f"{source}.listed")
    if bool(listed) != (mode == InputMode.LISTED.value):
        raise InvalidArgument(f"{source}: inputs is {mode!r}; `listed` belongs to inputs: listed, and that needs it")
    models = _mapping(section.get("models", {}), f"{source}.models", "models")
    for model, tensors in models.items():
        for tensor, action in _mapping(tensors, f"{source}.models.{model}", "tensors").items():
            _check(action, f"{source}.models.{model}.{tensor}")
    document = {**section, "revision": revision, "inputs": mode, "listed": listed, "models": models}
    config = RedactionConfig(json.dumps(document, separators=(",", ":"), sort_keys=True))
    return config.with_key(key.encode(), f"environment, {KEY_VARIABLE}") if key else config


def _check_texts(section: Mapping[str, object], source: str) -> None:
    key_id = section.get("key-id", "1")
    fit = isinstance(key_id, str) and 1 <= len(key_id) <= 32 and key_id.isascii()
    if not fit or not all(character.isalnum() or character in "._-" for character in str(key_id)):
        raise _refusal(f"{source}.key-id", key_id, _ID)
    key_file = section.get("key-file", "")
    if not isinstance(key_file, str) or "\0" in key_file:
        raise _refusal(f"{source}.key-file", key_file, "a path")


def _listed(value: object, path: str) -> dict[str, list[str]]:
    tensors_by_model = {}
    for model, tensors in _mapping(value, path, "models").items():
        if not isinstance(tensors, list) or not all(isinstance(name, str) for name in tensors):
            raise _refusal(f"{path}.{model}", tensors, "a list of inputs")
        tensors_by_model[model] = list(tensors)
    return tensors_by_model


def _check(action: object, path: str, *, feature: bool = False) -> None:
    """Raises: InvalidArgument (no action)."""
    if action is None or action in ("null", "hash") or (action == "drop" and not feature):
        return
    if isinstance(action, Mapping) and set(action) == {"bucket"}:
        if not _rising(action["bucket"]):
            raise _refusal(f"{path}.bucket", action["bucket"], "a list of rising numbers")
        return
    if isinstance(action, Mapping) and set(action) == {"features"} and not feature:
        for index, own in _mapping(action["features"], f"{path}.features", "feature numbers").items():
            if not index.isdecimal():
                raise _refusal(f"{path}.features", index, "the number of a feature, counted from 0")
            _check(own, f"{path}.features.{index}", feature=True)
        return
    raise _refusal(path, action, "null, hash or {bucket: [rising numbers]}" if feature else _ACTIONS)


def _rising(edges: object) -> bool:
    if not isinstance(edges, Sequence) or isinstance(edges, str) or not edges:
        return False
    if any(isinstance(edge, bool) or not isinstance(edge, int | float) or not math.isfinite(edge) for edge in edges):
        return False
    return list(edges) == sorted(set(edges))


def _model_rules(model: str, tensors: Mapping[str, Any]) -> list[RedactionRule]:
    rules = []
    for tensor, action in tensors.items():
        if isinstance(action, Mapping) and "features" in action:
            rules += [_rule(model, tensor, own, int(index)) for index, own in action["features"].items()]
        else:
            rules.append(_rule(model, tensor, action, None))
    return rules


def _rule(model: str, tensor: str, action: Any, feature: int | None) -> RedactionRule:
    if isinstance(action, Mapping):
        return RedactionRule(
            model, tensor, RedactionAction.BUCKET, feature, tuple(float(edge) for edge in action["bucket"])
        )
    return RedactionRule(model, tensor, RedactionAction.NULL if action is None else RedactionAction(action), feature)


def _mapping(value: object, path: str, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refusal(path, value, f"a mapping of {what}")
    return {str(name): given for name, given in value.items()}


def _refusal(path: str, value: object, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"{path} is {json.dumps(value, default=str)[:80]}, allowed: {allowed}")
