"""Paths and URIs: what names a repository and a directory in it, what is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loaders import schemes, uri
from loaders.errors import UnsafeSource, UnsupportedUri


@pytest.mark.parametrize(
    "text",
    ["/r/m", "file:///r/m", "file://localhost/r/m", "FILE:///r/m", "file:///r/%6d", "/r/m/", "/r//./m", "/r/x/../m"],
)
def test_names_a_repository(text: str) -> None:
    assert schemes.canonical(text) == "/r/m"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:///r/m%00/1",
        "file:///r/m/1?x=1",
        "file:///r/m/1#x",
        "file://host/r/m/1",
        "file:///r/%ff/1",
        "/r/" + "m/" * 4000,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UnsupportedUri):
        schemes.canonical(text)


@pytest.mark.parametrize("text", ["ftp://bucket/m", "http://169.254.169.254/r", "gopher://x"])
def test_an_unknown_scheme_is_told_the_known_ones(text: str) -> None:
    for ask in (schemes.canonical, schemes.missing):
        with pytest.raises(UnsupportedUri, match=r"no loader for [a-z0-9]+:// URIs, only for a path or file://, s3://"):
            ask(text)


@pytest.mark.parametrize("name", ["", ".", "..", " m", "m\n", ".hidden", "m:1", "e\u0301", "m" * 129, "a/b", "/etc"])
def test_no_directory_is_called_so(name: str) -> None:
    with pytest.raises(UnsafeSource, match="is refused"):
        uri.check_directory_name(name)


@given(st.text(max_size=60))
@example("..")
@example("/")
@example("")
def test_no_name_leads_elsewhere(text: str) -> None:
    try:
        uri.check_directory_name(text)
    except UnsafeSource:
        return
    assert text
    assert text not in (".", "..")
    assert "/" not in text
    assert "\0" not in text
