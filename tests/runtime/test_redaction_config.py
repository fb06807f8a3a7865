"""Redaction as the configuration file says it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import InvalidArgument
from gateway.records.worker.redaction_rule import InputMode, RedactionAction, RedactionRule
from gateway.runtime.config import from_json
from gateway.runtime.config_parser import load, parse
from gateway.runtime.log_settings import redaction_of

KEY = "a key of thirty-two characters ok"
SECTION: dict[str, Any] = {
    "revision": 3,
    "inputs": "listed",
    "listed": {"people": ["name", "age"], "*": ["id"]},
    "key-id": "k1",
    "models": {
        "people": {"name": "hash", "free": None, "age": {"features": {0: {"bucket": [18, 30]}, 3: "null"}}},
        "*": {"email": "drop"},
    },
}


def test_rules_come_to_the_log_and_survive_the_way_to_another_process() -> None:
    config = parse({}, {"GATEWAY_REDACTION_KEY": KEY}, {"redaction": SECTION})
    for own in (config, from_json(config.to_json())):
        redaction = redaction_of(own.redaction)
        assert set(redaction.rules) == {
            RedactionRule("people", "name", RedactionAction.HASH),
            RedactionRule("people", "free", RedactionAction.NULL),
            RedactionRule("people", "age", RedactionAction.BUCKET, 0, (18.0, 30.0)),
            RedactionRule("people", "age", RedactionAction.NULL, 3),
            RedactionRule("*", "email", RedactionAction.DROP),
        }
        assert (redaction.key, redaction.key_id, redaction.revision) == (KEY.encode(), "k1", 3)
        assert redaction.inputs is InputMode.LISTED
        assert redaction.listed == {("people", "name"), ("people", "age"), ("*", "id")}


def test_without_a_section_nothing_is_redacted() -> None:
    assert redaction_of(parse({}, {"GATEWAY_REDACTION_KEY": KEY}, {}).redaction).rules == ()


def test_the_key_comes_from_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"redaction": {**SECTION, "key-file": str(tmp_path / "key")}}))
    config = load({"config": file}, {})
    assert redaction_of(config.redaction).key == KEY.encode()
    shown = f"{config} {config.dump()} {redaction_of(config.redaction)}"
    assert KEY not in shown
    assert KEY.encode().hex() not in shown
    assert "'revision': 3" in shown


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"keyfile": "x"}, "redaction: there is no 'keyfile', allowed: revision, inputs"),
        ({"revision": -1}, "redaction.revision is -1, allowed: a whole number"),
        ({"inputs": "some"}, 'redaction.inputs is "some", allowed: all, listed, none'),
        ({"inputs": "all"}, "`listed` belongs to inputs: listed"),
        ({"listed": {"people": "name"}}, 'redaction.listed.people is "name", allowed: a list of inputs'),
        ({"key-id": "a b"}, 'redaction.key-id is "a b", allowed: 1 to 32'),
        ({"models": {"people": {"name": "mask"}}}, 'redaction.models.people.name is "mask", allowed: drop, null'),
        (
            {"models": {"m": {"x": {"bucket": [3, 1]}}}},
            "redaction.models.m.x.bucket is [3, 1], allowed: a list of rising",
        ),
        ({"models": {"m": {"x": {"features": {"a": None}}}}}, 'm.x.features is "a", allowed: the number of a feature'),
        ({"models": {"m": {"x": {"features": {1: "drop"}}}}}, 'm.x.features.1 is "drop", allowed: null, hash'),
        ({"models": ["m"]}, 'redaction.models is ["m"], allowed: a mapping of models'),
    ],
)
def test_what_is_not_allowed_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse({}, {}, {"redaction": {**SECTION, **changes}})
    assert text in str(raised.value)


def test_a_hash_needs_a_key_that_cannot_be_guessed(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"redaction": SECTION}))
    with pytest.raises(InvalidArgument, match="hash needs a key in the file key-file or in GATEWAY_REDACTION_KEY"):
        load({"config": file}, {})
    with pytest.raises(InvalidArgument, match="has 5 bytes, at least 16 are allowed") as raised:
        load({"config": file}, {"GATEWAY_REDACTION_KEY": "short"})
    assert "short" not in str(raised.value)
    file.write_text(yaml.safe_dump({"redaction": {**SECTION, "key-file": "/nowhere/key"}}))
    with pytest.raises(InvalidArgument, match="key-file '/nowhere/key' cannot be read: No such file"):
        load({"config": file}, {})
