"""The store's address, its TLS, and the users with least rights that docs/redis.md publishes, on real servers."""

import ast
import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.store import store_script
from gateway.routing.store.audit_trail import append, audit
from gateway.routing.store.route_draft import Drafts
from gateway.routing.store.store_address import Node, parse_address
from gateway.routing.store.store_link import Link
from gateway.routing.store.store_rights import users
from gateway.routing.store.store_script import library
from gateway.routing.store.watch import CaughtUp, watch
from gateway.routing.store.worker_status import FeedState
from tests.routing.live import (
    BY,
    DEADLINE_S,
    admin_of,
    control_of,
    document,
    feed,
    live,
    running,
    share_of,
    store_of,
    until,
)
from tests.routing.servers import CERTIFICATES, Server, server_context, stopped
from tests.valkey import Valkey

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text("utf-8")
CA = f"ssl_ca_certs={CERTIFICATES / 'ca.pem'}"
CLIENT = f"ssl_certfile={CERTIFICATES / 'client.pem'}&ssl_keyfile={CERTIFICATES / 'client.key'}"


def published() -> list[list[str]]:
    """The words of the commands in the page's block of users."""
    block = re.search(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return [line.split() for line in block[1].splitlines()]


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


# ---- users ----


@asynccontextmanager
async def guarded(valkey: Valkey, *, functions: bool = True) -> AsyncIterator[tuple[str, str]]:
    """URLs of the worker's and the control user on a server that has the published users and the functions."""
    async with admin_of(valkey.url) as admin:
        for words in published():
            await admin.call(*words)
        if functions:
            await admin.call("FUNCTION", "LOAD", "REPLACE", library())
    users = [(f"{valkey.url}?username=gateway-{role}&password={role}-password") for role in ("worker", "control")]
    yield users[0], users[1]


async def test_the_whole_gateway_works_with_the_published_users(valkey: Valkey, tmp_path: Path) -> None:
    async with guarded(valkey) as (worker_url, control_url):
        feeds = [feed(worker_url, tmp_path, "serves"), feed(control_url, tmp_path, "controls")]
        async with store_of(control_url) as store, running(*feeds):
            control = control_of(store, feeds[1])
            for share in (10, 20):
                result = await control.apply(document(share=share), change=BY, wait_s=DEADLINE_S)
                assert len(result.change.applied.workers) == 2
            await control.rollback("fraud", change=BY, wait_s=DEADLINE_S)
            assert [share_of(one.snapshot) for one in feeds] == [10, 10]
            assert (await control.list()).stale is False
            assert len(await control.history("fraud")) == 3
            assert len((await control.workers())[0]) == 2
            await control.delete("fraud", change=BY, wait_s=DEADLINE_S)
            await until(lambda: all(not one.snapshot.routes for one in feeds))
            await control.apply(document("churn"), change=BY, wait_s=DEADLINE_S)
            async with admin_of(valkey.url) as admin:
                await admin.call("SET", "{gw:default}:epoch", "another")
            await until(lambda: all(one.state is FeedState.AHEAD for one in feeds))
            await control.heal(change=BY)
            await until(lambda: live(*feeds))
            for one in feeds:
                await one.leave()
            assert await store.workers() == []


async def test_the_published_users_work_on_the_server_that_this_machine_has(tmp_path: Path) -> None:
    """With Debian 12's redis-server that is 7.0, the oldest that docs/redis.md promises."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed on this machine")
    server = Server(tmp_path / "redis", {}, program=program)
    server.start()
    async with stopped(server), admin_of(server.url) as admin:
        for words in published():
            await admin.call(*words)
        await admin.call("FUNCTION", "LOAD", "REPLACE", library())
        worker, control = (f"redis://gateway-{role}:{role}-password@{server.address}" for role in ("worker", "control"))
        follower = feed(worker, tmp_path)
        async with store_of(control) as store, running(follower):
            result = await control_of(store, follower).apply(document(share=20), change=BY, wait_s=DEADLINE_S)
            assert len(result.change.applied.workers) == 1
            assert share_of(follower.snapshot) == 20
            assert len(await control_of(store, follower).history("fraud")) == 1
            await follower.leave()


def test_the_page_shows_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["redis-acl"]).stdout
    assert [line.split() for line in printed.splitlines()] == published()
    other = CliRunner().invoke(app, ["redis-acl", "--environment", "prod"]).stdout
    named = printed.replace("gateway-worker", "gateway-worker-prod").replace("gateway-control", "gateway-control-prod")
    assert other == named.replace("{gw:default}", "{gw:prod}")
    assert CliRunner().invoke(app, ["redis-acl", "--environment", "a} b"]).exit_code == 2


async def test_the_users_of_two_environments_stand_beside_each_other(valkey: Valkey) -> None:
    async with admin_of(valkey.url) as admin:
        for environment in ("default", "prod"):
            for user in users(environment):
                await admin.call(*user.command().split())
    for name, environment in (("gateway-worker", "default"), ("gateway-worker-prod", "prod")):
        async with admin_of(f"{valkey.url}?username={name}&password=worker-password") as worker:
            assert await worker.call("GET", f"{{gw:{environment}}}:epoch") is None


async def test_the_users_may_use_the_commands_that_stand_in_the_sources_and_no_other(valkey: Valkey) -> None:
    """`SET` in the sources is a command if the server has one of this name."""
    async with admin_of(valkey.url) as admin:
        listed = await admin.call("COMMAND", "LIST")
    assert isinstance(listed, list)
    commands = {name.decode() for name in listed if isinstance(name, bytes)}
    folder = Path(store_script.__file__).parent
    words: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isupper():
                words.add(node.value.lower())
    for path in folder.glob("*.lua"):
        words |= {call.lower() for call in re.findall(r"redis\.call\('([A-Z]+)'", path.read_text("utf-8"))}
    used = (words & commands) - {"eval", "evalsha", "object", "acl"}
    used |= {"fcall", "fcall_ro"}  # in place of EVAL and EVALSHA, which nobody but the administrator may send
    used |= {"ping", "client|setname", "select", "multi", "exec"}  # of the client library itself
    used = (used - {"xinfo"}) | {"xinfo|stream"}
    granted = {command for user in users("default") for command in user.grant.commands}
    assert granted == used
    beside = {command for user in users("default") if user.beside is not None for command in user.beside.commands}
    assert beside < granted


async def test_a_worker_adds_to_the_audit_trail_and_takes_nothing_away(valkey: Valkey) -> None:
    async with guarded(valkey) as (worker_url, _), store_of(worker_url) as store, admin_of(worker_url) as worker:
        assert await append(store, "model.load", model="fraud", change=BY) == 1
        for words in (("DEL", store.keys.audit), ("XDEL", store.keys.audit, "1-0"), ("DEL", store.keys.chain)):
            with pytest.raises(StoreUnavailable, match="refused permission"):
                await worker.call(*words)


async def test_a_user_who_may_not_record_a_change_cannot_make_it(valkey: Valkey) -> None:
    """As one of an older release, whose rights were not renewed at the upgrade."""
    async with guarded(valkey) as (_, control_url), store_of(control_url) as store, admin_of(valkey.url) as admin:
        await control_of(store).apply(document(), change=BY)
        before = await store.state()
        for command in ("-hmget", "-xadd"):
            await admin.call("ACL", "SETUSER", "gateway-control", command)
            with pytest.raises(StoreUnavailable, match=r"ACL failure|permission"):
                await control_of(store).apply(document(share=20), change=BY)
            await admin.call("ACL", "SETUSER", "gateway-control", f"+{command[1:]}")
            assert await store.state() == before
        assert [entry.operation for entry in await audit(store)] == ["apply"]


def test_the_published_users_name_no_command_that_came_after_redis_7_0() -> None:
    later = {"client|setinfo", "client|no-touch", "waitaof", "hexpire", "hpexpire", "hgetdel", "hgetex", "hsetex"}
    assert not later & {word.removeprefix("+") for words in published() for word in words}


async def test_drafts_the_audit_and_watching_work_with_the_published_users(valkey: Valkey) -> None:
    async with guarded(valkey) as (_, control_url), store_of(control_url) as store:
        drafts = Drafts(store)
        draft = await drafts.put(document(), 0, BY, needed=1)
        approved = await drafts.approve(draft.id, replace(BY, actor="somebody else"))
        assert approved.approved
        assert [one.id for one in await drafts.list()] == [draft.id]
        await control_of(store).apply(document(), change=BY)
        operations = [entry.operation for entry in await audit(store)]
        assert operations == ["apply", "draft.approve", "draft.put"]
        async for happening in watch(store, backlog=1):
            if isinstance(happening, CaughtUp):
                break


def test_every_script_of_the_store_is_a_function_of_the_library() -> None:
    scripts = {path.name for path in (Path(store_script.__file__).parent).glob("*.lua")}
    assert scripts - {"chain.lua"} == {f"{script.name}.lua" for script in store_script.ALL}
    for script in store_script.ALL:
        assert ("no-writes" in script.text.split("\n", 1)[0]) == (script.suffix == "_RO")


async def test_functions_survive_a_restart_of_the_server(valkey: Valkey, tmp_path: Path) -> None:
    async with guarded(valkey) as (worker_url, control_url):
        follower = feed(worker_url, tmp_path)
        async with store_of(control_url) as store, running(follower):
            await control_of(store).apply(document(share=10), change=BY, wait_s=DEADLINE_S)
            valkey.restart()
            async with admin_of(valkey.url) as admin:  # users come from a file that this server does not have
                for words in published():
                    await admin.call(*words)
            await until(lambda: live(follower))
            await control_of(store).apply(document(share=30), change=BY, wait_s=DEADLINE_S)
            assert share_of(follower.snapshot) == 30


async def test_a_user_without_the_functions_is_told_what_is_missing(valkey: Valkey) -> None:
    async with guarded(valkey, functions=False) as (_, control_url), store_of(control_url) as store:
        with pytest.raises(StoreUnavailable, match="lacks the gateway's functions"):
            await store.state()


@pytest.mark.parametrize("role", [0, 1])
@pytest.mark.parametrize(
    "words",
    [
        ("GET", "foreign"),
        ("SET", "foreign", "x"),
        ("HSET", "{gw:other}:routes", "m", "x"),
        ("CONFIG", "GET", "*"),
        ("EVAL", "return 1", 0),
        ("EVAL_RO", "return 1", 0),
        ("SCRIPT", "LOAD", "return 1"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() end)"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("ACL", "WHOAMI"),
        ("SUBSCRIBE", "x"),
        ("REPLICAOF", "NO", "ONE"),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
async def test_what_neither_user_needs_is_refused(valkey: Valkey, role: int, words: tuple[str | int, ...]) -> None:
    async with guarded(valkey) as urls, admin_of(urls[role]) as user:
        with pytest.raises(StoreUnavailable, match="refused permission"):
            await user.call(*words)


async def test_a_worker_of_a_serving_host_cannot_change_rules(valkey: Valkey, tmp_path: Path) -> None:
    async with guarded(valkey) as (worker_url, control_url):
        async with store_of(control_url) as store:
            await control_of(store).apply(document(), change=BY)
        async with store_of(worker_url) as store, admin_of(worker_url) as worker:
            told = r"refused permission to this user .*: ask at a host whose user may, .*`gateway redis-acl` prints them$"
            with pytest.raises(StoreUnavailable, match=told):
                await control_of(store).apply(document(share=20), change=BY)
            for key in ("routes", "log", "rev", "hist:fraud", "idem:x"):
                with pytest.raises(StoreUnavailable, match="refused permission"):
                    await worker.call("DEL", f"{{gw:default}}:{key}")
            assert [route.model for route in (await control_of(store).list()).routes] == ["fraud"]
