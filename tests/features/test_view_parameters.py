"""Feature views as configurations describe them, and what is said of a wrong one."""

import pytest

from gateway.errors import FailedPrecondition
from gateway.features.feature_view import HashEncoding, RowLayout, StaleRows
from gateway.features.view_parameters import PARAMETERS, feature_view
from gateway.tensor import Datatype, TensorSpec
from tests.features.views import FEAST, USERS, view


def test_a_view_of_hashes() -> None:
    users = view(
        {
            **USERS,
            "store": "shop",
            "encoding": "raw",
            "timestamp_field": "at",
            "max_age_seconds": "3600",
            "stale": "serve",
            "unavailable": "error",
            "deadline_ms": "5",
            "cache_seconds": "1.5",
            "cache_bytes": "1000",
            "stored_as.score": "s",
            "default.embedding": "[1, 2]",
            "status_output": "status",
            "age_output": "age",
        },
        features=[
            ("score", Datatype.FP32, 1),
            ("age", Datatype.FP32, 1),
            ("embedding", Datatype.FP32, 2),
            ("status", Datatype.UINT8, 2),
        ],
    )
    assert (users.layout, users.encoding, users.stale_rows) == (RowLayout.HASH, HashEncoding.RAW, StaleRows.SERVE)
    assert (users.store, users.deadline_ms, users.cache_s, users.cache_bytes) == ("shop", 5.0, 1.5, 1000)
    assert [(one.name, one.stored, one.default is None) for one in users.features] == [
        ("score", "s", True),
        ("embedding", "embedding", False),
    ]
    assert (users.status_output, users.age_output, users.fails_unavailable) == ("status", "age", True)
    assert users.outputs == ("score", "age", "embedding", "status")


def test_what_is_not_said_has_a_default() -> None:
    users = view(USERS)
    assert (users.store, users.deadline_ms, users.cache_s, users.max_age_s) == ("default", 50.0, 0.0, 0.0)
    assert view(FEAST).key_version == 3


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({}, "parameters.key: the layout 'hash' needs it, such as 'user:{user_id}'"),
        ({"key": "{user_id}"}, "must begin with text"),
        ({"key": "user:"}, "leaves out the input 'user_id'"),
        ({"key": "user:{id}"}, "{id} is no input"),
        ({"key": "user:{user_id}{user_id}"}, "needs text between two inputs"),
        ({"key": "user:{user_id"}, "has a brace without its other half"),
        ({"layout": "list", **USERS}, "parameters.layout: 'list' is not one of feast, hash"),
        ({**USERS, "project": "shop"}, "parameters.project: has no meaning in the layout 'hash'"),
        ({**FEAST, "key": "user:{user_id}"}, "parameters.key: has no meaning in the layout 'feast'"),
        ({"layout": "feast", "project": "shop"}, "parameters.feature_view: the layout 'feast' needs it"),
        ({**FEAST, "entity_key_version": "1"}, "parameters.entity_key_version: '1' is not one of 2, 3"),
        ({**USERS, "tll": "5"}, "parameters: 'tll' is unknown; allowed: store, layout,"),
        ({**USERS, "default.scores": "5"}, "parameters.default.scores: no feature has that name"),
        ({**USERS, "stored_as.user_id": "id"}, "parameters.stored_as.user_id: no feature has that name"),
        ({**USERS, "default.score": "much"}, "parameters.default.score: 'much' is no TYPE_FP32 of dims [1]: no number"),
        ({**USERS, "deadline_ms": "0"}, "parameters.deadline_ms: '0' must be a number from 1 to 1000"),
        ({**USERS, "deadline_ms": "nan"}, "parameters.deadline_ms: 'nan' must be a number"),
        ({**USERS, "max_age_seconds": "60"}, "needs parameters.timestamp_field"),
        ({**USERS, "stale": "error"}, "parameters.stale: needs parameters.max_age_seconds"),
        ({**USERS, "store": "redis://:secret@host"}, "parameters.store:"),
        ({**USERS, "status_output": "status"}, "parameters.status_output: 'status' must be an output of TYPE_UINT8"),
        ({**USERS, "age_output": "score"}, "output: 0 features, allowed are 1 to 1024"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, str], why: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        view(parameters)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (TensorSpec("f", Datatype.BF16, (-1, 1)), "output 'f': TYPE_BF16 is not read from a store"),
        (TensorSpec("f", Datatype.FP32, (-1, -1)), "output 'f': dims [-1] must be fixed"),
        (TensorSpec("f", Datatype.FP64, (-1, 1 << 30)), "output 'f': a row exceeds the limit"),
    ],
)
def test_a_wrong_output_is_named(spec: TensorSpec, why: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        feature_view("users", USERS, (TensorSpec("user_id", Datatype.INT64, (-1, 1)),), (spec,))
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (TensorSpec("user_id", Datatype.FP32, (-1, 1)), "allowed: TYPE_STRING, TYPE_INT64, TYPE_INT32"),
        (TensorSpec("user_id", Datatype.INT64, (-1, 1), optional=True), "a key cannot be optional"),
        (TensorSpec("user_id", Datatype.INT64, (-1,)), "dims must be [ 1 ]"),
        (TensorSpec("user_id", Datatype.INT64, (-1, 2)), "dims must be [ 1 ]"),
    ],
)
def test_a_wrong_input_is_named(spec: TensorSpec, why: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        feature_view("users", USERS, (spec,), (TensorSpec("f", Datatype.FP32, (-1, 1)),))
    assert why in str(refused.value)


def test_a_view_without_keys_and_one_that_asks_twice() -> None:
    with pytest.raises(FailedPrecondition, match="needs the entity's key as an input"):
        view(USERS, keys=())
    with pytest.raises(FailedPrecondition, match="two outputs are the same feature"):
        view({**USERS, "stored_as.b": "a"}, features=[("a", Datatype.FP32, 1), ("b", Datatype.FP32, 1)])


def test_every_parameter_belongs_to_a_layout() -> None:
    assert all(PARAMETERS.values())
