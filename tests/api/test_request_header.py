"""Names, versions and ids of a request, read before its tensors."""

import pytest

from gateway.api.decode import read_header
from gateway.errors import InvalidArgument
from tests.api.requests import raw_request


@pytest.mark.parametrize(
    "name",
    [
        *("", "../etc", "a/../b", "model/..", "..", "/etc/passwd", "m/sub", "m/", " ..", ".. ", "a\\b", "a\0b", "a:b"),
        "a*",
        "a?",
        "a[b",
        "a\n",
        "-a",
        ".a",
        "e\u0301",
        "\u00e9",
        "a\u202e",
        "\u0430bc",
        "\U0001f600",
        "a" * 129,
        "a" * 10**6,
    ],
)
def test_names_that_no_model_has_are_refused(name: str) -> None:
    request = raw_request()
    request.model_name = name
    with pytest.raises(InvalidArgument) as caught:
        read_header(request, request.raw_input_contents)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "version",
    [
        *("../", "1/..", "%2e%2e", "-1", "99999999999999999999", "9223372036854775808", "1e3", "\uff11", "01", "+1"),
        *(" 1", "1 ", "1\n", "v" * 65, "\u0661"),
    ],
)
def test_versions_that_no_model_has_are_refused(version: str) -> None:
    request = raw_request()
    request.model_version = version
    with pytest.raises(InvalidArgument, match="failed to get model version from specified version string"):
        read_header(request, request.raw_input_contents)


@pytest.mark.parametrize("version", ["", "1", "0", "9223372036854775807", "stable", "v1.2", "1.2.0", "2024-01-31"])
def test_numbers_and_labels_are_versions(version: str) -> None:
    request = raw_request()
    request.model_version = version
    request.model_name = "A-b_c.9"
    read_header(request, request.raw_input_contents)


@pytest.mark.parametrize("request_id", ["i" * 257, "i" * 10**6, "a\nb", "a\x1b[31mb", "a\0", "\u202e", "\u2028"])
def test_ids_can_be_logged(request_id: str) -> None:
    request = raw_request()
    request.id = "i" * 256
    read_header(request, request.raw_input_contents)
    request.id = request_id
    with pytest.raises(InvalidArgument) as caught:
        read_header(request, request.raw_input_contents)
    assert str(caught.value).isprintable()
