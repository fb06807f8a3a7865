"""What a client reads of an error."""

import json

import pytest

from gateway.errors import Code, Internal, InvalidArgument, ResourceExhausted, Unauthenticated
from gateway.rest.http_refusal import HTTP_STATUS, refusal_of

EXHAUSTED = (b"x-gateway-code", b"RESOURCE_EXHAUSTED")


def test_every_code_has_a_status() -> None:
    assert set(HTTP_STATUS) == set(Code)


def test_a_client_is_told_when_to_come_again() -> None:
    refusal = refusal_of(ResourceExhausted("full", retry_after_ms=250), "x")
    assert refusal.status == 429
    assert refusal.fields == ((b"retry-after", b"1"), EXHAUSTED)


def test_what_never_fits_is_too_large() -> None:
    refusal = refusal_of(ResourceExhausted("too large", retry_after_ms=-1), "x")
    assert (refusal.status, refusal.fields) == (413, (EXHAUSTED,))


def test_who_is_nobody_is_told_how_to_prove_himself() -> None:
    assert refusal_of(Unauthenticated("who?"), "x").fields == (
        (b"www-authenticate", b'Bearer realm="gateway"'),
        (b"x-gateway-code", b"UNAUTHENTICATED"),
    )


def test_the_body_names_the_error() -> None:
    assert json.loads(refusal_of(InvalidArgument('shape "ä"'), "x").body) == {"error": 'shape "ä"'}


def test_a_defect_of_ours_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    refusal = refusal_of(KeyError("secret"), "/v2")
    assert (refusal.status, refusal.text) == (500, str(Internal()))
    assert "handler of /v2 failed" in caplog.text
