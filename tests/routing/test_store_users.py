"""The users with least rights that docs/redis.md publishes, on real servers."""

import ast
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.errors import StoreUnavailable
from gateway.routing.store import store_script
from gateway.routing.store.audit_trail import append, audit
from gateway.routing.store.route_draft import Drafts
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
from tests.routing.servers import Server, stopped
from tests.valkey import Valkey

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text("utf-8")


def published() -> list[list[str]]:
    """The words of the commands in the page's block of users."""
    block = re.search(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return [line.split() for line in block[1].splitlines()]


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
            told = r"refused permission to this user .*: ask at a host whose user may, .*`gateway redis-acl` prints"
            with pytest.raises(StoreUnavailable, match=told):
                await control_of(store).apply(document(share=20), change=BY)
            for key in ("routes", "log", "rev", "hist:fraud", "idem:x"):
                with pytest.raises(StoreUnavailable, match="refused permission"):
                    await worker.call("DEL", f"{{gw:default}}:{key}")
            assert [route.model for route in (await control_of(store).list()).routes] == ["fraud"]
