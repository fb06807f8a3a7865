"""The store's address, and its TLS, on real servers."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.store.store_address import Node, parse_address
from gateway.routing.store.store_link import Link
from gateway.routing.store.worker_status import FeedState
from tests.routing.live import (
    BY,
    DEADLINE_S,
    control_of,
    document,
    feed,
    running,
    share_of,
    store_of,
)
from tests.routing.servers import CERTIFICATES, Server, server_context, stopped
from tests.valkey import Valkey

CA = f"ssl_ca_certs={CERTIFICATES / 'ca.pem'}"
CLIENT = f"ssl_certfile={CERTIFICATES / 'client.pem'}&ssl_keyfile={CERTIFICATES / 'client.key'}"


# ---- the address ----


def test_every_kind_of_address_is_read() -> None:
    one = parse_address("redis://u%40x:p%2Fw@[::1]:7000/3")
    assert (one.kind, one.nodes, one.tls) == ("single", (Node("::1", 7000),), False)
    assert one.options == {"username": "u@x", "password": "p/w", "db": 3}
    unix = parse_address("unix:///run/redis.sock?username=u&password=p&db=2")
    assert (unix.nodes, unix.unix, unix.options["db"]) == ((Node("/run/redis.sock", 0),), True, 2)
    named = parse_address("rediss+sentinel://u:p@a,b:1/main/2?sentinel_password=s&ssl_ca_certs=/ca.pem")
    assert (named.kind, named.service, named.nodes) == ("sentinel", "main", (Node("a", 26379), Node("b", 1)))
    assert named.options == {"username": "u", "password": "p", "db": 2, "ssl_ca_certs": "/ca.pem"}
    assert named.sentinel_options == {"password": "s", "ssl_ca_certs": "/ca.pem"}
    many = parse_address("redis+cluster://a:1,b")
    assert (many.kind, many.nodes) == ("cluster", (Node("a", 1), Node("b", 6379)))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://a", "scheme 'http'"),
        ("redis+magic://a", "scheme"),
        ("redis://", "host:port"),
        ("redis://a:0", "host:port"),
        ("redis://a:70000", "host:port"),
        ("redis://a,b", "redis\\+sentinel"),
        ("redis+sentinel://a", "service"),
        ("redis+cluster://a/1", "one database"),
        ("redis://a/x", "db 'x'"),
        ("redis://a/1/2", "path"),
        ("redis://a?ssl_ca_certs=/x", "option 'ssl_ca_certs'"),
        ("rediss://a?ssl_cert_reqs=optional", "required or none"),
        ("rediss://a?ssl_check_hostname=perhaps", "true or false"),
        ("redis://a?socket_timeout=1", "option 'socket_timeout'"),
        ("unix://run/redis.sock", "absolute path"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        Link(url, name="x")


def test_an_address_shows_no_password() -> None:
    shown = repr(parse_address("redis+sentinel://u:hidden@a/main?sentinel_password=hidden"))
    assert "hidden" not in shown


# ---- TLS ----


@asynccontextmanager
async def terminator(socket_path: Path) -> AsyncIterator[int]:
    """A port that takes TLS with a client certificate and passes everything on to a unix socket."""

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_unix_connection(socket_path)
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, ahead))
            group.create_task(carry(behind, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(client_certificate=True))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def tls_port(kind: str, directory: Path, valkey: Valkey) -> AsyncIterator[int]:
    if kind == "terminator":
        async with terminator(valkey.socket_path) as port:
            yield port
        return
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no redis-server with TLS is installed on this machine")
    options = {
        "tls-cert-file": str(CERTIFICATES / "server.pem"),
        "tls-key-file": str(CERTIFICATES / "server.key"),
        "tls-ca-cert-file": str(CERTIFICATES / "ca.pem"),
        "tls-auth-clients": "yes",
    }
    server = Server(directory / "tls", options, program=program, tls=True)
    try:
        server.start()
    except RuntimeError as error:
        pytest.skip(f"{program} was built without TLS: {error}"[:200])
    async with stopped(server):
        yield server.port


@pytest.mark.parametrize("kind", ["terminator", "server"])
async def test_rules_come_over_tls_with_both_sides_proven(kind: str, valkey: Valkey, tmp_path: Path) -> None:
    async with tls_port(kind, tmp_path, valkey) as port:
        url = f"rediss://localhost:{port}?{CA}&{CLIENT}"
        follower = feed(url, tmp_path)
        async with store_of(url) as store, running(follower):
            await control_of(store).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
            assert (follower.state, share_of(follower.snapshot)) == (FeedState.LIVE, 20)
        plain = feed(f"redis://localhost:{port}", tmp_path, "plain")
        await plain.boot(timeout_s=5.0)
        assert not plain.rules_known
        assert "if it expects TLS its URL begins with rediss://" in plain.error
        await plain.aclose()
        for doubtful in (f"rediss://localhost:{port}?{CLIENT}", f"rediss://localhost:{port}?{CA}"):
            async with store_of(doubtful) as store:
                with pytest.raises(StoreUnavailable):
                    await store.state()
        async with store_of(f"redis://localhost:{port}") as store:
            with pytest.raises(StoreUnavailable):
                await store.state()


async def test_a_server_under_another_name_is_not_trusted(valkey: Valkey) -> None:
    async with terminator(valkey.socket_path) as port:
        async with store_of(f"rediss://127.0.0.2:{port}?{CA}&{CLIENT}") as store:
            with pytest.raises(StoreUnavailable):
                await store.state()
        async with store_of(f"rediss://localhost:{port}?{CLIENT}") as store:
            with pytest.raises(StoreUnavailable, match="certificate that does not verify"):
                await store.state()


async def test_who_is_asked_over_tls_and_does_not_answer_is_named_so(tmp_path: Path) -> None:
    server = Server(tmp_path / "plain", {})
    server.start()
    async with stopped(server):
        follower = feed(f"rediss://{server.address}?{CA}", tmp_path)
        await follower.boot(timeout_s=5.0)
        assert "did not answer within" in follower.error  # it waits for the rest of what it takes for a command
        assert "over TLS" in follower.error
        await follower.aclose()
