"""Heads and chunked bodies, whatever the bytes are and however they are cut."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.rest.chunked_body import ChunkedBody
from gateway.rest.endpoint import Endpoint, EndpointMatch
from gateway.rest.http_call import HttpCall
from gateway.rest.http_head import HeadParser
from gateway.rest.http_refusal import HttpRefusal

LIMIT = 1000


def nothing(call: HttpCall) -> None:
    pass


class Everything:
    """A table that serves every path."""

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        return EndpointMatch(Endpoint(nothing, "x"), (path,))

    def permissions(self) -> Iterable[str]:
        return ()


lines = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(b"Host: a", b"Host: b", b"Content-Length: 3", b"Content-Length: x", b"Transfer-Encoding: chunked"),
                *(
                    b"Expect: 100-continue",
                    b"Connection: close",
                    b"X: \xff",
                    b" folded",
                    b"Content-Encoding: gzip",
                    b"",
                ),
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=6,
)


@given(st.one_of(st.just(b"POST /a?b HTTP/1.1"), st.just(b"GET / HTTP/1.0"), st.binary(max_size=30)), lines)
@example(b"", [])
@example(b"GET / HTTP/1.1", [b"Host: a"])
@example(b"GET / HTTP/1.1", [b"Host: a", b"Host: a"])
def test_a_head_is_served_or_refused_and_says_where_it_ends(first: bytes, rest: list[bytes]) -> None:
    block = b"\r\n".join([first, *rest]) + b"\r\n\r\n"
    head = HeadParser(Everything()).parse(block)
    if isinstance(head.outcome, HttpRefusal):
        assert 400 <= head.outcome.status < 600
    else:
        # What is served was framed in one way alone.
        lower = [line.lower() for line in rest]
        assert sum(line.startswith(b"content-length:") for line in lower) <= 1
        assert not (head.chunked and any(line.startswith(b"content-length:") for line in lower))
        assert head.chunked == (head.content_length < 0)
        assert sum(line.startswith(b"host:") for line in lower) == 1 or head.version == "1.0"


@given(st.binary(max_size=60))
def test_a_head_that_comes_again_says_the_same(noise: bytes) -> None:
    parser = HeadParser(Everything())
    block = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + noise + b"\r\n\r\n"
    first, second = parser.parse(block), parser.parse(block)
    assert (first.outcome, first.fields, first.fatal) == (second.outcome, second.fields, second.fatal)


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.lists(st.integers(0, 600), max_size=10), st.binary()
)
@example([], [], b"")
@example([b"a"], [0, 0], b"GET")
@example([b"aa"] * 5, list(range(60)), b"\r\n")
def test_chunks_are_the_same_body_however_they_are_cut(chunks: list[bytes], cuts: list[int], behind: bytes) -> None:
    sent = b"".join(b"%x;e=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nT: 1\r\n\r\n"
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    body = ChunkedBody(LIMIT)
    for begin, end in pairwise(places):
        assert body.feed(sent[begin:end], 0) == end - begin
    assert body.complete
    assert body.join() == b"".join(chunks)
    again = ChunkedBody(LIMIT)
    assert again.feed(sent + behind, 0) == len(sent)  # what follows is the next request's


@given(st.binary(max_size=80), st.integers(1, 80))
def test_no_bytes_make_a_body_beyond_its_limit(noise: bytes, cut: int) -> None:
    body = ChunkedBody(16)
    for part in (noise[:cut], noise[cut:]):
        if isinstance(body.feed(part, 0), HttpRefusal):
            return
    assert body.size_bytes <= 16
