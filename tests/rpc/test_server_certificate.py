"""Certificates that change while a server runs: new connections see the new one, what is unsound changes nothing."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
import uvloop

from gateway.errors import InvalidArgument
from gateway.rpc.server import Server, ServerOptions
from gateway.rpc.server_certificate import ServerCertificate, TlsFiles, check_dates, read
from tests.machine_load import as_loaded
from tests.routing.live import until
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import TRANSPORTS, make, path
from tests.taken_threads import taken_threads

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Place:
    """Where a server's files lie, and what is written there."""

    files: TlsFiles

    def write(self, certificate: trustme.LeafCert, key: trustme.LeafCert | None = None) -> None:
        (self.files.certificate).write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        (self.files.key).write_bytes((key or certificate).private_key_pem.bytes())

    def trust(self, authority: trustme.CA) -> None:
        assert self.files.client_ca is not None
        self.files.client_ca.write_bytes(authority.cert_pem.bytes())


def place(directory: Path, *, clients: bool = False) -> Place:
    ca = directory / "clients.pem" if clients else None
    return Place(TlsFiles(directory / "server.pem", directory / "server.key", ca))


def issued(authority: trustme.CA, not_after: datetime | None = None) -> trustme.LeafCert:
    return authority.issue_cert("localhost", not_after=not_after)


@asynccontextmanager
async def started(transport: str, files: TlsFiles) -> AsyncIterator[Server]:
    server = make(transport, ServerOptions(reuse_port=False, tls=files, tls_look_s=0.01))
    register(Behaviour(), server)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def shown(server: Server, authority: trustme.CA) -> str:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
    serial = str(writer.get_extra_info("peercert")["serialNumber"])
    writer.transport.abort()
    return serial


async def becomes(server: Server, authority: trustme.CA, other_than: str) -> str:
    async with asyncio.timeout(10):
        while (serial := await shown(server, authority)) == other_than:
            pass
    return serial


async def called(channel: grpc.aio.Channel) -> bytes:
    answer: bytes = await channel.unary_unary(path("EchoNow"), None, None)(b"x", timeout=5)
    return answer


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_new_connections_see_the_new_certificate_and_old_ones_go_on(transport: str, tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    async with started(transport, at.files) as server:
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{server.port}", trusted) as channel:
            assert await called(channel) == b"x"
            serials = [await shown(server, authority)]
            for _ in range(3):
                at.write(issued(authority))
                serials.append(await becomes(server, authority, serials[-1]))
            assert await called(channel) == b"x"
        assert len(set(serials)) == 4
        assert server.certificate is not None
        assert server.certificate.trouble == ""


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_unsound_is_told_and_changes_nothing(
    transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    async with started(transport, at.files) as server:
        before, certificate = await shown(server, authority), server.certificate
        assert certificate is not None
        at.write(issued(authority), key=issued(authority))
        await until(lambda: "key values mismatch" in certificate.trouble)
        at.write(issued(authority, not_after=LONG_AGO.replace(year=2021)))
        await until(lambda: "expired 2021-01-01T00:00:00Z" in certificate.trouble)
        at.files.certificate.unlink()
        await until(lambda: "cannot be read: No such file" in certificate.trouble)
        assert await shown(server, authority) == before
        assert [record.levelno for record in caplog.records if record.message.startswith("TLS:")] == [logging.ERROR] * 3
        at.write(issued(authority))
        await becomes(server, authority, before)
        assert certificate.trouble == ""


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_another_client_authority_lets_its_clients_in_and_no_others(transport: str, tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path, clients=True)
    first, second = trustme.CA(), trustme.CA()
    at.write(issued(authority))
    at.trust(first)

    async def let_in(clients: trustme.CA) -> bool:
        own = clients.issue_cert("somebody")
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        shows = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), own.private_key_pem.bytes(), chain)
        # No session of another channel is resumed: the same process has been let in before.
        alone = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", shows, options=alone) as channel:
            try:
                return await called(channel) == b"x"
            except grpc.aio.AioRpcError as error:
                return error.code() is not grpc.StatusCode.UNAVAILABLE

    async with started(transport, at.files) as server:
        assert (await let_in(first), await let_in(second)) == (True, False)
        at.trust(second)
        async with asyncio.timeout(10):
            while not await let_in(second):
                pass
        assert not await let_in(first)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nobody_is_turned_away_while_certificates_change(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    serials: set[str] = set()

    async def connect(server: Server) -> None:
        for _ in range(60):
            serials.add(await shown(server, authority))

    async def renew() -> None:
        while True:
            at.write(issued(authority))
            await asyncio.sleep(0.03)

    async def run() -> None:
        async with started("ngh2", at.files) as server:
            renewing = asyncio.create_task(renew())
            await asyncio.gather(*(connect(server) for _ in range(4)))
            renewing.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())
    assert len(serials) > 2


async def test_a_stop_in_the_middle_of_renewals_leaves_nobody_listening(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    renewed = [issued(authority) for _ in range(20)]
    for number in range(10):
        server = make("ngh2", ServerOptions(reuse_port=False, tls=at.files, tls_look_s=0.001))
        await server.start()
        for one in renewed[number : number + 10]:
            at.write(one)
            await asyncio.sleep(0.001)
        await asyncio.gather(server.stop(0), server.stop(0))
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_certificate_is_renewed_while_all_else_that_reads_hangs(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(issued(authority))
    certificate = ServerCertificate(at.files)
    renewed = issued(authority)
    at.write(renewed)
    renewals = certificate.renewals(0.001)
    with taken_threads():
        async with asyncio.timeout(as_loaded(5.0)):
            assert (await anext(renewals)).key == renewed.private_key_pem.bytes()


def test_files_that_are_written_one_by_one_are_no_trouble(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    first, second = issued(authority), issued(authority)
    at.write(first)
    certificate = ServerCertificate(at.files)
    assert not certificate.look()
    at.write(second, key=first)
    assert not certificate.look()
    assert certificate.trouble == ""
    at.write(second)
    assert certificate.look()
    assert certificate.material.key == second.private_key_pem.bytes()
    assert not certificate.look()


def test_a_certificate_that_is_not_valid_yet_is_taken_when_it_is(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path)
    at.write(authority.issue_cert("localhost", not_before=LONG_AGO.replace(year=2021)))
    now = [LONG_AGO.timestamp()]
    certificate = ServerCertificate(at.files, wall_s=lambda: now[0])
    assert "is not valid before" in certificate.trouble
    assert not certificate.look()
    now[0] = LONG_AGO.replace(year=2022).timestamp()
    assert certificate.look()
    assert certificate.trouble == ""


def test_what_cannot_be_a_servers_is_refused_by_name(tmp_path: Path) -> None:
    authority, at = trustme.CA(), place(tmp_path, clients=True)
    with pytest.raises(InvalidArgument, match=r"server\.pem' cannot be read: No such file"):
        read(at.files)
    at.write(issued(authority))
    with pytest.raises(InvalidArgument, match=r"clients\.pem' cannot be read"):
        read(at.files)
    assert at.files.client_ca is not None
    at.files.client_ca.write_text("no certificate")
    with pytest.raises(InvalidArgument, match=r"client CA '.*clients\.pem'"):
        read(at.files)
    at.trust(authority)
    check_dates(read(at.files), at.files, datetime.now(UTC).timestamp() + 60)
    at.files.key.write_text("no key")
    with pytest.raises(InvalidArgument, match=r"certificate '.*server\.pem' with key '.*server\.key'"):
        read(at.files)
