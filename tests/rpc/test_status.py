import logging

import grpc
import pytest

from gateway.errors import Code, GatewayError, Internal, ResourceExhausted, UnknownModel
from gateway.rpc.method import Method
from gateway.rpc.status_codes import STATUS, status_of


def test_every_code_has_its_number_and_none_is_unknown() -> None:
    assert set(STATUS) == set(Code)
    assert all(status.value[0] == code.value for code, status in STATUS.items())
    assert grpc.StatusCode.UNKNOWN not in STATUS.values()


def every_error(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in every_error(child))]


def test_every_error_of_the_tree_has_a_status() -> None:
    assert {error.code for error in every_error()} <= set(STATUS)
    assert status_of(UnknownModel("m"), "/x") == (grpc.StatusCode.NOT_FOUND, str(UnknownModel("m")), ())
    full = ResourceExhausted("full", retry_after_ms=70)
    told = (("grpc-retry-pushback-ms", "70"),)
    assert status_of(full, "/x") == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", told)
    assert status_of(ResourceExhausted("full"), "/x").metadata == ()


def test_other_exceptions_are_internal_and_logged_with_their_stack(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert status_of(KeyError("secret"), "/x") == (grpc.StatusCode.INTERNAL, str(Internal()), ())
    assert caplog.records[0].exc_info


def test_a_callback_method_must_be_unary() -> None:
    from gateway.rpc.handler import by_callback

    @by_callback
    def answer(message: bytes, context: object) -> None:
        return None

    with pytest.raises(TypeError, match="unary"):
        Method("/x/y", grpc.unary_stream_rpc_method_handler(answer))
    assert Method("/x/y", grpc.unary_unary_rpc_method_handler(answer)).by_callback
