"""Files that change, files that break, issuers that are away: who is known then, and what is told of it."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.access.entrance import FETCH_S, RETRY_S, AccessFiles, Entrance, Watched
from gateway.access.key_fetch import fetch
from gateway.access.token_file import parse_tokens
from gateway.errors import InvalidArgument, PermissionDenied, Unauthenticated
from tests.access.guarded import token_of, tokens_file
from tests.access.issuer import EXPECTED, NOW_S, Clock, Issuer
from tests.access.issuer_servers import Published, Says
from tests.machine_load import as_loaded
from tests.taken_threads import taken_threads

INFER = b"/inference.GRPCInferenceService/ModelInfer"
APPLY = b"/gateway.v1.Control/Apply"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(tokens_file())
    return path


def entrance(clock: Clock, files: AccessFiles, kept: Path | None = None) -> Entrance:
    return Entrance(files, wall_s=clock, monotonic_s=clock, kept=kept)


def bearer(name: str) -> bytes:
    return f"Bearer {token_of(name)}".encode()


def written(path: Path, content: str | bytes | None) -> None:
    """Makes the file hold the content; None takes it away."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


async def looked_twice(made: Entrance) -> bool:
    """A file counts once it was the same for two looks."""
    return [await made.step(), await made.step()][-1]


async def test_a_token_that_is_revoked_is_refused_at_the_next_look(clock: Clock, tokens: Path) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    gate = made.gatekeeper
    assert gate.authorize(INFER, bearer("infer"), ()).name == "infer"
    assert not await looked_twice(made)
    written(tokens, "".join(line for line in tokens_file().splitlines(keepends=True) if "name=infer" not in line))
    assert not await made.step()
    assert await made.step()
    with pytest.raises(Unauthenticated):
        gate.authorize(INFER, bearer("infer"), ())
    assert gate.authorize(APPLY, bearer("operator"), ()).name == "operator"
    assert made.status() == {"trouble": "", "told": {}}


def replaced(path: Path, content: bytes, look: int) -> None:
    """Renames a whole file over the one at the path, as at another second."""
    beside = path.with_name("beside")
    beside.write_bytes(content)
    os.utime(beside, (NOW_S, NOW_S + look))
    beside.replace(path)


async def test_a_file_that_is_replaced_each_second_counts_once_it_says_the_same_twice(
    clock: Clock, tokens: Path
) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    revoked = "".join(line for line in tokens_file().splitlines(keepends=True) if "name=infer" not in line).encode()
    for look in range(2):
        replaced(tokens, revoked, look)
        assert await made.step() == (look == 1)
    with pytest.raises(Unauthenticated):
        made.gatekeeper.authorize(INFER, bearer("infer"), ())
    for look in range(12):  # another text each time
        replaced(tokens, f"{tokens_file()}\n# {look}".encode(), look)
        assert not await made.step()
    assert "is another at each look" in made.trouble
    assert await made.step()  # nobody has written it since
    assert made.trouble == ""


@pytest.mark.parametrize("half", [b"", tokens_file().partition("\n")[0].encode(), b"# \xc3"])
async def test_half_of_a_file_that_is_written_in_place_each_second_never_counts(
    clock: Clock, tokens: Path, half: bytes
) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    for look in range(12):
        assert (made.trouble == "") == (look < 10)
        written(tokens, half)
        os.utime(tokens, (NOW_S, NOW_S + look))
        assert not await made.step()
    assert "access-tokens: is another at each look: it counts once nobody has written it for a second" in made.trouble
    for name in ("infer", "operator"):
        assert made.gatekeeper.authorize(INFER if name == "infer" else APPLY, bearer(name), ()).name == name
    replaced(tokens, half, 13)  # nor is it what the one that has replaced it is compared with
    assert not await made.step()
    written(tokens, tokens_file())
    assert not await looked_twice(made)
    assert made.trouble == ""


async def test_a_file_that_is_replaced_each_second_and_is_none_is_told(clock: Clock, tokens: Path) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    for look in range(2):
        assert made.trouble == ""
        replaced(tokens, b"\xff", look)
        assert not await made.step()
    assert made.trouble == "access-tokens: the text is not UTF-8"


def test_a_file_that_is_not_there_at_the_first_start_left_nothing_in_force(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = tokens.rename(tokens.with_name("gone"))
    watched = Watched("access-tokens", parse_tokens, None)
    watched.look(tokens, first=True)
    assert "access-tokens: cannot be read: No such file or directory" in caplog.text
    assert "in force" not in caplog.text
    gone.rename(tokens)
    assert watched.look(tokens, first=True)
    tokens.unlink()
    watched.look(tokens)
    assert "No such file or directory; what was in force stays" in caplog.text


async def test_a_token_is_revoked_while_all_else_that_reads_hangs(clock: Clock, tokens: Path) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    written(tokens, "".join(line for line in tokens_file().splitlines(keepends=True) if "name=infer" not in line))
    with taken_threads():
        async with asyncio.timeout(as_loaded(5.0)):
            assert await looked_twice(made)


@pytest.mark.parametrize("damage", [b"half a li", b"\xff", None], ids=["text", "bytes", "gone"])
async def test_a_broken_file_changes_nothing_and_is_told(clock: Clock, tokens: Path, damage: bytes | None) -> None:
    made = entrance(clock, AccessFiles(tokens=tokens))
    written(tokens, damage)
    assert not await looked_twice(made)
    assert made.gatekeeper.authorize(INFER, bearer("infer"), ()).name == "infer"
    assert made.trouble.startswith("access-tokens: ")
    written(tokens, tokens_file() + "\n# mended")
    assert await looked_twice(made)
    assert made.trouble == ""


async def test_roles_are_read_anew(clock: Clock, tmp_path: Path) -> None:
    roles = tmp_path / "roles.yaml"
    roles.write_text("identities: {batch: {grants: [{role: infer}]}}")
    made = entrance(clock, AccessFiles(roles=roles))
    assert made.gatekeeper.authorize(INFER, None, ("batch",)).name == "batch"
    roles.write_text("identities: {batch: {grants: [{role: reader}]}}")
    assert await looked_twice(made)
    with pytest.raises(PermissionDenied, match="'batch' holds reader"):
        made.gatekeeper.authorize(INFER, None, ("batch",))
    roles.write_text("identities: {batch: {grants: [{role: root}]}}")
    assert not await looked_twice(made)
    assert "access-roles: identities.batch.grants[0].role: 'root' is not one of" in made.trouble


def test_a_worker_that_starts_while_a_file_is_broken_goes_on_with_what_was_kept(
    clock: Clock, tokens: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    entrance(clock, AccessFiles(tokens=tokens), kept)
    (file,) = kept.glob("tokens-*")
    assert file.stat().st_mode & 0o077 == 0
    tokens.write_text("oops")
    made = entrance(clock, AccessFiles(tokens=tokens), kept)
    assert made.gatekeeper.authorize(INFER, bearer("infer"), ()).name == "infer"
    assert "access-tokens: line 1:" in made.trouble
    with pytest.raises(InvalidArgument, match="access-tokens: line 1:"):
        entrance(clock, AccessFiles(tokens=tokens), tmp_path / "nothing-kept")


@pytest.fixture
def issuer() -> Issuer:
    made = Issuer()
    made.add("first")
    return made


@pytest.fixture
def web(issuer: Issuer) -> Iterator[Published]:
    published = Published(issuer)
    thread = threading.Thread(target=published.server.serve_forever, args=(0.01,))
    thread.start()
    yield published
    published.server.shutdown()
    thread.join()
    published.server.server_close()


def files(web: Published, roles: Path) -> AccessFiles:
    return AccessFiles(roles=roles_file(roles.parent), keys=web.url, expected=EXPECTED)


def roles_file(directory: Path) -> Path:
    path = directory / "roles"
    path.write_text("groups: {ml: {grants: [{role: operator}]}}")
    return path


def signed(issuer: Issuer, key_id: str) -> bytes:
    return f"Bearer {issuer.sign(key_id, groups=['ml'], exp=NOW_S + 10**6)}".encode()


async def looked_until(made: Entrance, condition: Callable[[], bool]) -> None:
    """Looks until it is so: a look waits for a fetch that it began for a moment only."""
    async with asyncio.timeout(as_loaded(10)):
        while not condition():
            await made.step()


async def renewed(made: Entrance) -> None:
    """Looks until one says that callers are admitted by something new."""
    async with asyncio.timeout(as_loaded(10)):
        while not await made.step():
            pass


async def test_keys_are_fetched_beside_the_requests_and_rotated(
    clock: Clock, web: Published, issuer: Issuer, tmp_path: Path
) -> None:
    made = entrance(clock, files(web, tmp_path / "roles"))
    await made.prepare()
    gate = made.gatekeeper
    assert gate.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"
    issuer.add("second")
    issuer.published.remove("first")
    assert not await made.step()
    clock.now_s += FETCH_S
    await renewed(made)
    assert gate.authorize(APPLY, signed(issuer, "second"), ()).name == "alice"
    with pytest.raises(Unauthenticated):
        gate.authorize(APPLY, signed(issuer, "first"), ())
    assert web.asked == 2


async def test_an_unknown_key_has_the_keys_fetched_once_for_a_while(
    clock: Clock, web: Published, issuer: Issuer, tmp_path: Path
) -> None:
    made = entrance(clock, files(web, tmp_path / "roles"))
    await made.prepare()
    issuer.add("second")
    clock.now_s += RETRY_S
    for _ in range(100):
        with pytest.raises(Unauthenticated, match="signing key that is not known"):
            made.gatekeeper.authorize(APPLY, signed(issuer, "second"), ())
    assert web.asked == 1
    await renewed(made)
    assert made.gatekeeper.authorize(APPLY, signed(issuer, "second"), ()).name == "alice"
    stranger = Issuer()
    stranger.add("never")
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            made.gatekeeper.authorize(APPLY, signed(stranger, "never"), ())
        await made.step()
    assert web.asked == 2
    clock.now_s += RETRY_S
    await looked_until(made, lambda: web.asked == 3)


async def test_while_the_issuer_is_away_its_old_keys_count(
    clock: Clock, web: Published, issuer: Issuer, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    made = entrance(clock, files(web, tmp_path / "roles"), kept)
    await made.prepare()
    web.down = True
    clock.now_s += FETCH_S
    await looked_until(made, lambda: made.trouble != "")
    assert made.gatekeeper.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"
    assert "jwt-keys: cannot be fetched:" in made.trouble
    started_now = entrance(clock, files(web, tmp_path / "roles"), kept)
    await started_now.prepare()
    assert started_now.gatekeeper.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"
    web.down = False
    clock.now_s += RETRY_S
    await looked_until(made, lambda: made.trouble == "")


async def test_what_was_kept_of_another_file_or_issuer_counts_no_more(
    clock: Clock, tokens: Path, web: Published, issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, elsewhere = tmp_path / "kept", tmp_path / "elsewhere"
    made = entrance(clock, replace(files(web, tmp_path / "roles"), tokens=tokens), kept)
    await made.prepare()
    again = entrance(clock, replace(files(web, tmp_path / "roles"), tokens=tokens), kept)
    assert again.gatekeeper.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"
    assert not [record for record in caplog.records if record.levelname != "INFO"], "nothing was wrong"
    web.down = True
    other = entrance(clock, replace(files(web, tmp_path / "roles"), keys=f"{web.url}?another"), kept)
    await other.prepare()
    with pytest.raises(Unauthenticated, match="signing key that is not known"):
        other.gatekeeper.authorize(APPLY, signed(issuer, "first"), ())
    with pytest.raises(InvalidArgument, match=r"access-tokens: cannot be read: No such file .*elsewhere"):
        entrance(clock, AccessFiles(tokens=elsewhere), kept)


@pytest.mark.parametrize("body", [b"{}", b"\xff", b"[" * 100, b"x" * (2 << 20)], ids=["none", "bytes", "deep", "large"])
async def test_a_document_that_is_none_changes_nothing(
    clock: Clock, web: Published, issuer: Issuer, tmp_path: Path, body: bytes
) -> None:
    made = entrance(clock, files(web, tmp_path / "roles"))
    await made.prepare()
    web.body = body
    clock.now_s += FETCH_S
    await looked_until(made, lambda: made.trouble != "")
    assert made.trouble.startswith("jwt-keys: ")
    assert made.gatekeeper.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"


async def test_a_redirect_is_not_followed(clock: Clock, web: Published, tmp_path: Path) -> None:
    web.url = web.url.replace("/keys", "/moved")
    made = entrance(clock, files(web, tmp_path / "roles"))
    await made.prepare()
    assert "jwt-keys: cannot be fetched" in made.trouble
    assert web.asked == 1


@pytest.fixture
def says() -> Iterator[Says]:
    server = Says()
    yield server
    server.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        b"HTTP/1.1 9 \r\n\r\n",
        b"",
    ],
    ids=["garbage", "chunks", "status", "nothing"],
)
async def test_an_issuer_that_speaks_no_http_changes_nothing(
    clock: Clock, says: Says, tmp_path: Path, answer: bytes
) -> None:
    says.answer = answer
    made = entrance(clock, AccessFiles(roles=roles_file(tmp_path), keys=says.url, expected=EXPECTED))
    await made.prepare()
    assert made.trouble.startswith("jwt-keys: ")


async def test_while_an_issuer_answers_slowly_revoked_tokens_are_refused(
    clock: Clock, says: Says, tokens: Path
) -> None:
    says.answer, says.goes_on = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", threading.Event()
    made = entrance(clock, AccessFiles(tokens=tokens, keys=says.url, expected=EXPECTED))
    assert not await made.step()
    written(tokens, "")
    await looked_twice(made)
    with pytest.raises(Unauthenticated):
        made.gatekeeper.authorize(INFER, bearer("infer"), ())
    clock.now_s += RETRY_S
    await made.step()
    assert "no whole answer after 10 s" in made.trouble
    says.goes_on.set()


async def test_an_issuer_without_an_end_keeps_no_other_answer_away(
    clock: Clock, says: Says, issuer: Issuer, tmp_path: Path
) -> None:
    endless = says.goes_on = threading.Event()
    says.answer = b"HTTP/1.1 200 OK\r\nX: "
    made = entrance(clock, AccessFiles(roles=roles_file(tmp_path), keys=says.url, expected=EXPECTED))
    assert not await made.step()
    body = issuer.document().encode()
    says.goes_on = threading.Event()
    says.goes_on.set()
    says.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    clock.now_s += RETRY_S
    await renewed(made)
    assert made.gatekeeper.authorize(APPLY, signed(issuer, "first"), ()).name == "alice"
    assert made.trouble == ""
    endless.set()


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"])
def test_an_answer_by_single_bytes_ends_in_time(says: Says, begin: bytes) -> None:
    says.answer, says.goes_on = begin, threading.Event()
    with pytest.raises(OSError, match=r"it answers for more than 0\.3 s|timed out"):
        fetch(says.url, 0.3)
    says.goes_on.set()
