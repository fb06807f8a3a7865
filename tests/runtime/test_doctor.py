"""What `gateway doctor` finds: by numbers, and on this host with real files, ports and a real store."""

import asyncio
import ctypes
import fcntl
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from gateway.errors import InvalidArgument
from gateway.runtime import host_checks, store_visit
from gateway.runtime.config import Config
from gateway.runtime.config_parser import parse
from gateway.runtime.host_examination import CHECKS, examine, worst
from gateway.runtime.host_finding import HostFinding, HostState, ok, unknown, warn
from gateway.runtime.memory_allowance import memory_allowance
from gateway.runtime.store_visit import StoreVisit
from tests import models
from tests.routing.live import admin_of
from tests.valkey import Valkey

OK, WARN, FAIL, UNKNOWN = HostState.OK, HostState.WARN, HostState.FAIL, HostState.UNKNOWN
GIB = 1 << 30


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    models.write_version(tmp_path / "models", "affine", "1", models.affine())

    def made(**options: object) -> Config:
        given = {"data-dir": tmp_path / "data", "model-repository": str(tmp_path / "models"), "grpc-port": 0}
        given |= {"metrics-port": 0, "http-port": 0, "workers": 1}
        return parse(given | {name.replace("_", "-"): value for name, value in options.items()}, {}, {})

    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "store").start()
    yield server
    server.stop()


async def found(config: Config) -> dict[str, HostFinding]:
    return await examine(lambda: config)


async def test_each_check_of_the_table_says_something(configure: Callable[..., Config]) -> None:
    findings = await found(configure())
    assert list(findings) == list(CHECKS)
    assert all(one.seen for one in findings.values())
    assert all(bool(one.remedy) != (one.verdict is OK) for one in findings.values())
    assert findings["repository"] == ok("affine")
    assert [findings[name].verdict for name in ("configuration", "ports", "store", "secrets")] == [OK] * 4


async def test_a_start_that_would_be_refused_is_a_failure_and_the_rest_is_unknown() -> None:
    def refuses() -> Config:
        raise InvalidArgument("--workers is 1000")

    findings = await examine(refuses)
    assert findings["configuration"].verdict is FAIL
    assert "--workers is 1000" in findings["configuration"].seen
    assert {one.verdict for name, one in findings.items() if name != "configuration"} == {UNKNOWN}


async def test_a_port_that_somebody_listens_on(configure: Callable[..., Config]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        findings = await found(configure(grpc_port=port))
        assert findings["ports"].verdict is FAIL
        assert str(port) in findings["ports"].seen


async def test_a_gateway_that_runs_here_holds_its_ports(configure: Callable[..., Config]) -> None:
    config = configure(grpc_port=1)
    config.process.data_dir.mkdir()
    descriptor = os.open(config.process.data_dir / "lock", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, b"4711\n", 0)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        findings = await found(config)
    finally:
        os.close(descriptor)
    assert (findings["ports"].verdict, findings["data-dir"].verdict) == (OK, WARN)
    assert "4711" in findings["data-dir"].seen
    assert host_checks.running_in(config.process.data_dir) == ""


async def test_a_store_that_is_well(configure: Callable[..., Config], store: Valkey) -> None:
    findings = await found(configure(redis_url=store.url))
    names = ("store", "store-version", "store-persistence", "store-policy", "clock")
    assert [findings[name].verdict for name in names] == [OK] * 5
    assert findings["store-version"].seen.startswith("valkey ")


async def test_a_store_that_forgets_and_evicts(configure: Callable[..., Config], tmp_path: Path) -> None:
    server = Valkey(tmp_path / "forgets", append_only=False).start()
    try:
        async with admin_of(server.url) as admin:
            await admin.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        findings = await found(configure(redis_url=server.url))
    finally:
        server.stop()
    assert (findings["store-persistence"].verdict, findings["store-policy"].verdict) == (WARN, FAIL)


async def test_a_user_who_may_not_ask_is_told_that_nothing_is_known(
    configure: Callable[..., Config], store: Valkey
) -> None:
    async with admin_of(store.url) as admin:
        await admin.call(
            "ACL", "SETUSER", "worker", "on", ">secret", "~*", "-@all", "+ping", "+client|setname", "+role"
        )
    findings = await found(configure(redis_url=f"{store.url}?username=worker&password=secret"))
    assert findings["store"].verdict is OK
    for name in ("store-version", "store-persistence", "store-policy", "clock"):
        assert findings[name].verdict is UNKNOWN, name


async def test_a_store_that_is_away_is_a_failure_only_where_there_are_no_rules(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure(redis_url=f"unix://{tmp_path}/nobody.sock")
    assert (await found(config))["store"].verdict is FAIL
    config.rules_file.parent.mkdir(parents=True)
    config.rules_file.with_name("worker-3").write_text("rules")
    findings = await found(config)
    assert findings["store"].verdict is WARN
    assert findings["clock"].verdict is UNKNOWN


async def test_a_repository_that_is_not_there_or_empty(configure: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (await found(configure(model_repository=str(tmp_path / "empty"))))["repository"].verdict is WARN
    assert (await found(configure(model_repository=str(tmp_path / "none"))))["repository"].verdict is FAIL


async def test_a_file_beside_models_is_no_fault_but_one_that_may_be_meant_as_a_model_is(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "models" / "README.md").write_text("read me")
    assert (await found(configure()))["repository"] == ok("affine")
    (tmp_path / "models" / "mine.onnx").touch()
    finding = (await found(configure()))["repository"]
    assert finding.verdict is WARN
    assert "'mine.onnx' is none: a file" in finding.seen


async def test_a_data_directory_that_cannot_be_one(configure: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, seen in (("file", "is no directory"), ("file/data", "is no directory"), ("link", "is a link to")):
        finding = (await found(configure(data_dir=tmp_path / place)))["data-dir"]
        assert (finding.verdict, seen in finding.seen) == (FAIL, True), finding


def in_child(look: Callable[[], object]) -> str:
    """What `look` returns in a child of this process, as text, or what it raised: there it may give up its rights."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(tell, str(look()).encode())
        except BaseException as error:
            os.write(tell, f"raised {error!r}".encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as reader:
        return reader.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize(
    ("options", "seen"), [("ro,size=4g", "a file system that is read-only"), ("size=8m", "8.0 MiB of 8.0 MiB free")]
)
def test_a_file_system_that_is_read_only_or_full(tmp_path: Path, options: str, seen: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def look() -> HostFinding:
        place, private, new_mounts = str(tmp_path).encode(), 1 << 14 | 1 << 18, 0x20000
        flags = 1 if options.startswith("ro,") else 0
        if libc.unshare(new_mounts) or libc.mount(b"none", b"/", None, private, None):
            raise OSError(ctypes.get_errno(), "no mounts")
        if libc.mount(b"tmpfs", place, b"tmpfs", flags, options.removeprefix("ro,").encode()):
            raise OSError(ctypes.get_errno(), "no mounts")
        return host_checks.check_data_dir(tmp_path / "d", "") if flags else host_checks.check_disk(tmp_path / "d")

    told = in_child(look)
    if "no mounts" in told:
        pytest.skip(f"this host lets nobody mount: {told}")
    assert "HostState.FAIL" in told
    assert seen in told


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes somebody else")
def test_what_this_user_may_not_write_or_enter(tmp_path: Path) -> None:
    closed = Path(mkdtemp(dir="/tmp"))

    def look(place: Path) -> HostFinding:
        os.setgid(65534)
        os.setuid(65534)
        return host_checks.check_data_dir(place, "")

    try:
        told = in_child(lambda: look(closed))
        below = in_child(lambda: look(closed / "below" / "data"))
    finally:
        closed.rmdir()
    assert "HostState.FAIL" in told
    assert "HostState.FAIL" in below
    assert f"{closed} cannot be written by this user" in told
    assert "cannot be entered by this user" in below
    assert "now uid 65534" in told
    assert "now uid 65534" in below


@pytest.mark.parametrize(
    ("url", "answer", "seen"),
    [
        ("redis://127.0.0.1:{port}", b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no RESP"),
        ("rediss://127.0.0.1:{port}", b"-ERR no TLS here\r\n", "the TLS handshake failed"),
        ("redis://127.0.0.1:{port}", b"", "rediss://"),
        ("redis://nowhere.invalid:6379", b"", "unknown host name"),
    ],
)
async def test_what_is_wrong_with_the_way_to_the_store_is_said(
    configure: Callable[..., Config], url: str, answer: bytes, seen: str
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finding = (await found(configure(redis_url=url.format(port=port))))["store"]
    assert finding.verdict is FAIL
    assert seen in finding.seen
    assert "--redis-url" in finding.remedy


async def test_a_wrong_password_is_said(configure: Callable[..., Config], store: Valkey) -> None:
    async with admin_of(store.url) as admin:
        await admin.call("ACL", "SETUSER", "default", ">secret")
        await admin.call("ACL", "SETUSER", "default", "resetpass", ">right")
    finding = (await found(configure(redis_url=f"{store.url}?password=wrong")))["store"]
    assert finding.verdict is FAIL
    assert "refused the credentials" in finding.seen
    assert "wrong" not in finding.seen


async def test_each_feature_store_is_asked(configure: Callable[..., Config], store: Valkey, tmp_path: Path) -> None:
    assert (await found(configure()))["feature-stores"] == ok("none")
    one = (await found(configure(feature_store=f"shop={store.url}")))["feature-stores"]
    assert (one.verdict, one.seen.startswith("'shop' answers, valkey ")) == (OK, True)
    async with admin_of(store.url) as admin:
        await admin.call("ACL", "SETUSER", "reader", "on", ">right", "~user:*", "+hmget", "+ping", "+client|setname")
    reader = f"{store.url}?username=reader&password="
    stores = f"a={reader}right,b={reader}wrong,c=unix://{tmp_path}/absent"
    finding = (await found(configure(feature_store=stores)))["feature-stores"]
    assert finding.verdict is FAIL
    assert finding.seen.startswith("'b' refused the credentials")
    assert "; 'c' is not reachable: no socket at its path" in finding.seen
    assert "--feature-store" in finding.remedy
    alone = (await found(configure(feature_store=f"a={reader}right")))["feature-stores"]
    assert alone == ok("'a' answers; it does not say its version to this user")


async def test_files_that_everyone_may_change(configure: Callable[..., Config], tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o640)
    config = configure(access_tokens=tokens)
    assert (await found(config))["secrets"].verdict is OK
    tokens.chmod(0o666)
    finding = (await found(config))["secrets"]
    assert finding.verdict is FAIL
    assert str(tokens) in finding.seen
    secret = tmp_path / "secret"
    secret.touch(0o644)
    tokens.chmod(0o640)
    assert (await found(configure(webhook_secret_file=secret)))["secrets"].verdict is FAIL


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (host_checks.judge_disk(50 * GIB, 100 * GIB, 0.9), OK),
        (host_checks.judge_disk(9 * GIB, 100 * GIB, 0.9), WARN),
        (host_checks.judge_disk(50 * GIB, 100 * GIB, 0.05), WARN),
        (host_checks.judge_disk(GIB - 1, 5 * GIB, 0.9), FAIL),
        (host_checks.judge_files(1024, 20_000, 8192), OK),
        (host_checks.judge_files(1024, 8192, 8192), WARN),
        (host_checks.judge_files(256, 300, 8192), FAIL),
        (host_checks.judge_clock(0.0, 1e9), FAIL),
        (host_checks.judge_clock(1e9 - 3600, 1e9), UNKNOWN),
        (host_checks.judge_files(1024, resource.RLIM_INFINITY, 8192), OK),
        (host_checks.judge_cpus(64, 2.0, 2), OK),
        (host_checks.judge_cpus(64, 2.0, 64), WARN),
        (host_checks.judge_cpus(64, 0.5, 1), WARN),
        (host_checks.judge_certificate(100 * 86_400, 0.0), OK),
        (host_checks.judge_certificate(13 * 86_400, 0.0), WARN),
        (host_checks.judge_certificate(100.0, 101.0), FAIL),
        (store_visit.judge_feature_store(StoreVisit(facts={"cluster_enabled": "1"})), FAIL),
        (store_visit.judge_feature_store(StoreVisit(facts={"redis_version": "5.0.1"})), WARN),
        (store_visit.judge_version(StoreVisit(facts={"redis_version": "6.2.14"})), FAIL),
        (store_visit.judge_version(StoreVisit(facts={"redis_version": "7.0.0"})), OK),
        (store_visit.judge_version(StoreVisit(facts={"redis_version": "7.2.4", "valkey_version": "7.1.0"})), FAIL),
        (store_visit.judge_version(StoreVisit(facts={"redis_version": "7.4rc1"})), OK),
        (store_visit.judge_version(StoreVisit(facts={"redis_version": "unstable"})), UNKNOWN),
        (store_visit.judge_version(StoreVisit(withheld="no rights")), UNKNOWN),
        (store_visit.judge_skew(StoreVisit(ahead_s=-0.2)), OK),
        (store_visit.judge_skew(StoreVisit(ahead_s=5.0)), WARN),
        (store_visit.judge_skew(StoreVisit(ahead_s=-31.0)), FAIL),
        (store_visit.judge_persistence(StoreVisit(facts={"aof_enabled": "1", "aof_last_write_status": "err"})), FAIL),
        (store_visit.judge_persistence(StoreVisit(facts={"aof_enabled": "0", "rdb_last_save_time": "0"})), WARN),
        (host_checks.check_locale("xx_XX.none"), WARN),
        (host_checks.check_platform("linux"), OK),
        (host_checks.check_platform("darwin"), WARN),
        (host_checks.check_locale("C"), OK),
    ],
)
def test_numbers_are_judged(finding: HostFinding, verdict: HostState) -> None:
    assert finding.verdict is verdict, finding
    assert bool(finding.remedy) == (verdict is not OK)


def test_memory_is_compared_with_what_may_be_held(configure: Callable[..., Config]) -> None:
    assert host_checks.judge_memory(8 * GIB, configure(workers=2)).verdict is OK
    assert host_checks.judge_memory(2 * GIB, configure(workers=2)).verdict is WARN
    assert host_checks.judge_memory(8 * GIB, configure(workers=2, worker_memory_bytes=3 * GIB)).verdict is WARN
    assert host_checks.judge_memory(0, configure()).verdict is UNKNOWN


def test_the_least_limit_of_memory_counts(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    assert memory_allowance(groups, proc) == 0
    (proc / "meminfo").write_text("MemTotal:       8388608 kB\nMemFree: 1 kB\n")
    (proc / "self" / "cgroup").write_text("0::/pods/one\n3:memory:/old\n")
    (groups / "pods" / "one").mkdir(parents=True)
    (groups / "memory" / "old").mkdir(parents=True)
    assert memory_allowance(groups, proc) == 8 * GIB
    (groups / "pods" / "one" / "memory.max").write_text("max\n")
    (groups / "pods" / "memory.max").write_text(f"{4 * GIB}\n")
    assert memory_allowance(groups, proc) == 4 * GIB
    (groups / "memory" / "old" / "memory.limit_in_bytes").write_text(f"{3 * GIB}\n")
    assert memory_allowance(groups, proc) == 3 * GIB


async def test_the_clock_of_the_store_is_read(store: Valkey) -> None:
    def an_hour_behind() -> float:
        return time.time() - 3600

    seen = await store_visit.visit(store.url, an_hour_behind)
    assert store_visit.judge_skew(seen).verdict is FAIL


def test_what_is_unknown_is_worse_than_a_warning() -> None:
    assert worst({}) is UNKNOWN
    assert worst({"a": ok("x")}) is OK
    assert worst({"a": ok("x"), "b": warn("x", "y")}) is WARN
    assert worst({"a": unknown("x", "y"), "b": warn("x", "y")}) is UNKNOWN
