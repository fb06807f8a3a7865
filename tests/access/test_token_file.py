"""The file of static tokens: what a line says, what is refused, and that no token is in it or in an error."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.principal import Grant, Role
from gateway.access.token_file import (
    NAME,
    PREFIX,
    StaticToken,
    digest_of,
    new_token,
    parse_line,
    parse_tokens,
    random_token,
    without,
)
from gateway.errors import InvalidArgument, NotFound

TOKEN = new_token(bytes(range(32)))
HASH = f"sha256:{digest_of(TOKEN.encode()).hex()}"
PATTERNS = st.lists(st.text("abc.*-", min_size=1, max_size=9), min_size=1, max_size=4).map(tuple)


@given(
    digest=st.binary(min_size=32, max_size=32),
    name=st.from_regex(NAME, fullmatch=True),
    roles=st.lists(st.sampled_from(Role), min_size=1, max_size=5),
    models=PATTERNS,
    tenant=st.sampled_from(["", "acme", "a.b-c_1"]),
    expires_s=st.integers(0, 4_000_000_000),
)
@example(digest=bytes(32), name="a", roles=[Role.ADMIN], models=("*",), tenant="", expires_s=0)
def test_a_line_is_read_back_as_it_was_written(
    digest: bytes, name: str, roles: list[Role], models: tuple[str, ...], tenant: str, expires_s: int
) -> None:
    token = StaticToken(digest, name, tuple(Grant(role, models) for role in roles), tenant, float(expires_s))
    assert parse_line(token.to_line()) == token
    assert "\n" not in token.to_line()


def test_a_token_is_found_by_itself_alone() -> None:
    tokens = parse_tokens(f"# who\n\n{HASH} name=ci role=operator,infer models=fraud*,risk\n")
    known = tokens.find(TOKEN.encode())
    assert known is not None
    assert known.grants == (Grant(Role.OPERATOR, ("fraud*", "risk")), Grant(Role.INFER, ("fraud*", "risk")))
    assert tokens.find(TOKEN.encode()[:-1]) is tokens.find(b"") is tokens.find(TOKEN.lower().encode()) is None


def test_a_token_has_256_random_bits_and_a_mark() -> None:
    tokens = {random_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith(PREFIX) and len(token) == len(PREFIX) + 43 for token in tokens)
    with pytest.raises(ValueError, match="not 31"):
        new_token(bytes(31))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (TOKEN, "the first word is not sha256:"),
        (f"{HASH} {TOKEN}", "are allowed after the hash"),
        (f"{HASH} role=admin", "name is ''"),
        (f"{HASH} name=ci", "role is ''"),
        (f"{HASH} name=ci role=root", "role is 'root', allowed: infer, reader"),
        (f"{HASH} name=ci role=admin role=infer", "role is given twice"),
        (f"{HASH} name=ci role=admin models=a/b", "model pattern 'a/b'"),
        (f"{HASH} name=ci role=admin models=", "are allowed after the hash"),
        (f"{HASH} name=ci role=admin expires=tomorrow", "expires is 'tomorrow'"),
        (f"{HASH} name=ci role=admin expires=2027-01-01T00:00:00", "no time zone"),
        (f"{HASH} name=ci role=admin tenant=a/b", "tenant is 'a/b'"),
        (f"{HASH[:-1]} name=ci role=admin", "64 hexadecimal digits"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_never_repeats_a_token(line: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_tokens(f"# first\n{line}\n")
    assert str(caught.value).startswith("line 2: ")
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_token_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="line 2: the same token stands in an earlier line"):
        parse_tokens(f"{HASH} name=a role=admin\n{HASH} name=b role=infer\n")


def test_revoking_takes_off_what_is_named_and_leaves_the_rest_as_it_is() -> None:
    other = f"sha256:{'0' * 64} name=other role=infer"
    text = f"# keep me\n{HASH} name=ci role=admin\n\n{other}\n"
    assert without(text, "ci") == without(text, HASH) == without(text, HASH[7:15]) == f"# keep me\n\n{other}\n"
    for name in ("nobody", HASH[7:14], "0" * 7):
        with pytest.raises(NotFound, match="there is no token"):
            without(text, name)
