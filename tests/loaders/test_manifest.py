"""Manifests: what they accept, what they refuse, and that a digest names one content."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loaders import manifest
from loaders.errors import DigestMismatch, LoaderError, UnsafeSource
from loaders.loader import FileEntry

HEX = "0123456789abcdef" * 4
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,8}(/[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,8})?", fullmatch=True)
DIGESTS = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")


@given(st.dictionaries(NAMES, DIGESTS, max_size=8))
@example({})
def test_what_is_rendered_is_parsed_again(digests: dict[str, str]) -> None:
    files = [FileEntry(name, 0, digest) for name, digest in digests.items()]
    assert manifest.parse(manifest.render(files)) == digests
    assert manifest.digest_of(files) == manifest.digest_of(list(reversed(files)))
    manifest.compare(digests, files)


@given(st.text(max_size=200))
@example("")
@example("\n" * 200)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        digests = manifest.parse(text)
    except LoaderError:
        return
    assert all(len(digest) == 64 for digest in digests.values())


@pytest.mark.parametrize(
    "text",
    [
        f"{HEX}  ../model.onnx\n",
        f"{HEX}  /etc/passwd\n",
        f"{HEX}  a//b\n",
        f"{HEX}  a\x07\n",
        f"{HEX[:-1]}  model.onnx\n",
        f"{HEX} model.onnx\n",
        f"{HEX}  model.onnx\n{HEX}  ./model.onnx\n",
        f"{HEX}  мodel.onnx\n",
        "<html>",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UnsafeSource):
        manifest.parse(text)


def test_accepts_what_sha256sum_prints() -> None:
    assert manifest.parse(f"{HEX.upper()} *./model.onnx\n\n") == {"model.onnx": HEX}


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ({}, "not listed"),
        ({"a": HEX, "b": HEX}, "'b', which is not there"),
        ({"a": "0" * 64}, "'a' has SHA-256"),
    ],
)
def test_names_the_first_difference(expected: dict[str, str], text: str) -> None:
    with pytest.raises(DigestMismatch, match=text):
        manifest.compare(expected, [FileEntry("a", 1, HEX)])
