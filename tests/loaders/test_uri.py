"""Paths and file:// URIs: what names a version, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders import uri
from loaders.errors import LoaderError, UnsupportedUri


@pytest.mark.parametrize(
    "text",
    ["/r/m/1", "file:///r/m/1", "file://localhost/r/m/1", "FILE:///r/m/1", "file:///r/%6d/1", "/r/m/1/", "/r//m/./1"],
)
def test_names_a_version(text: str) -> None:
    assert uri.names_below("/r", uri.local_path(text)) == ("m", "1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/r",
        "/r/",
        "/elsewhere/m/1",
        "/r/../r/m/1",
        "file:///r/%2e%2e/x",
        "file:///r/..%2fx",
        "file:///r/%252e%252e",  # decoded once: the name '%2e%2e' holds a '%'
        "file:///r/m%00/1",
        "file:///r/m/1?x=1",
        "file:///r/m/1#x",
        "file://host/r/m/1",
        "file:///r/%ff/1",
        "s3://bucket/m/1",
        "http://169.254.169.254/r",
        "/r/ m/1",
        "/r/m\n/1",
        "/r/.hidden/1",
        "/r/m:1/1",
        "/r/e\u0301/1",
        "/r/" + "m" * 129,
        "/r/" + "m/" * 4000,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UnsupportedUri):
        uri.names_below("/r", uri.local_path(text))


@given(st.text(max_size=60))
def test_no_text_leads_out_of_the_repository(text: str) -> None:
    for candidate in (text, f"/r/{text}", f"file:///r/{text}", f"file://{text}"):
        try:
            names = uri.names_below("/r", uri.local_path(candidate))
        except LoaderError:
            continue
        assert names
        assert not {"", ".", ".."} & set(names)
        assert not any("/" in name or "\0" in name for name in names)
