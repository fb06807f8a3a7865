import json
import logging
import os
import resource
import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme

from gateway.cli.tls import ClientTls
from gateway.errors import FailedPrecondition
from gateway.runtime.banner import banner
from gateway.runtime.config_parser import parse
from gateway.runtime.file_limit import highest_limit
from gateway.runtime.instance import InstanceLock, Ports, make_directories, write_state
from gateway.runtime.liveness import Heartbeat, Timing, overweight
from gateway.runtime.platform_limits import NOT_LINUX, platform_limits
from gateway.telemetry.logs import FieldFormatter, JsonFormatter


def test_a_data_directory_has_one_holder_who_is_named(tmp_path: Path) -> None:
    with (
        InstanceLock(tmp_path / "data"),
        pytest.raises(FailedPrecondition, match=f"process {os.getpid()}.*kill {os.getpid()}.*--data-dir"),
    ):
        InstanceLock(tmp_path / "data")
    InstanceLock(tmp_path / "data").close()


def test_a_full_disk_keeps_nobody_from_a_data_directory_that_is_free(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # EFBIG stands for a full disk's ENOSPC
    try:
        with (
            InstanceLock(tmp_path / "data"),
            pytest.raises(FailedPrecondition, match="in use by a running gateway: stop it, or give"),
        ):
            InstanceLock(tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_data_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="cannot be used"):
        InstanceLock(tmp_path / "file" / "data")


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_refused(shared: bool) -> None:
    """Also by a listener that would share it: the kernel would let both serve, each some of the connections."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=rf"127\.0\.0\.1:{port}.*--grpc-port"):
            Ports("127.0.0.1", {"metrics-port": 0, "grpc-port": port})


def test_a_port_may_have_an_address_of_its_own() -> None:
    with (
        Ports("127.0.0.1", {"grpc-port": 0}, {"grpc-port": "127.0.0.2"}) as ports,
        socket.socket() as there,
        socket.socket() as here,
    ):
        here.bind(("127.0.0.1", ports.numbers["grpc-port"]))
        with pytest.raises(OSError, match="in use"):
            there.bind(("127.0.0.2", ports.numbers["grpc-port"]))


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"192\.0\.2\.1"):
        Ports("192.0.2.1", {"grpc-port": 0})


def test_reserved_ports_are_shared_with_children_and_with_nobody_else() -> None:
    with Ports("127.0.0.1", {"grpc-port": 0}) as ports:
        number = ports.numbers["grpc-port"]
        with socket.socket() as child:
            child.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            child.bind(("127.0.0.1", number))
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", number))


def test_where_no_kernel_spreads_connections_reserved_sockets_are_what_children_listen_on() -> None:
    wanted = {"grpc-port": 0, "metrics-port": 0}
    with Ports("127.0.0.1", wanted, spread=False) as ports:
        assert ports.inherited.keys() == wanted.keys()
        child = socket.socket(fileno=os.dup(ports.inherited["grpc-port"]))
        with child, ThreadPoolExecutor(1) as pool:
            child.settimeout(5)
            child.listen()
            address = ("127.0.0.1", ports.numbers["grpc-port"])
            accepted = pool.submit(lambda: child.accept()[0].close())
            socket.create_connection(address, timeout=5).close()
            accepted.result(5)
        with socket.socket() as sharing:
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                sharing.bind(address)
    with Ports("127.0.0.1", wanted, spread=True) as ports:
        assert not ports.inherited


@pytest.mark.parametrize(
    ("soft", "hard", "platform", "wanted"),
    [
        (1024, 4096, "linux", 4096),
        (256, resource.RLIM_INFINITY, "darwin", 10_240),
        (20_000, resource.RLIM_INFINITY, "darwin", 20_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "darwin", resource.RLIM_INFINITY),
        (256, 4096, "darwin", 4096),
    ],
)
def test_files_are_limited_as_little_as_the_platform_takes(soft: int, hard: int, platform: str, wanted: int) -> None:
    assert highest_limit(soft, hard, platform) == wanted


def test_the_page_of_platforms_names_each_limit_and_nothing_else() -> None:
    page = (Path(__file__).parents[2] / "docs/platforms.md").read_text()
    rows = page.partition("| on Linux | elsewhere |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert rows == [f"| {limit.feature} | {limit.instead} |" for limit in NOT_LINUX]
    assert not platform_limits("linux")


def test_a_socket_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    config = parse({"data-dir": tmp_path / ("d" * 110)}, {}, {})
    (tmp_path / "elsewhere").mkdir()
    config.socket_dir.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(FailedPrecondition):
            make_directories(config)
    finally:
        config.socket_dir.unlink()


def test_state_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(path, {"a": 1})
    write_state(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_delays_start_at_nothing_double_and_are_bounded() -> None:
    delays = [Timing().delay_s(deaths) for deaths in range(12)]
    assert delays[:5] == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert delays[-1] == Timing().backoff.longest_s
    assert Timing().delay_s(10_000) == Timing().backoff.longest_s


def test_a_child_is_hung_when_it_beat_once_and_then_was_silent() -> None:
    timing, heartbeat = Timing(silence_s=2.5, start_s=60, opening_s=10), Heartbeat(100.0)
    assert not heartbeat.hung(159.0, timing)
    assert heartbeat.hung(161.0, timing)
    heartbeat.heard(110.0)
    assert not heartbeat.hung(119.9, timing)
    assert heartbeat.hung(120.1, timing)
    heartbeat.ready = True
    assert not heartbeat.hung(112.4, timing)
    assert heartbeat.hung(112.6, timing)
    heartbeat.excuse(5.0)
    assert not heartbeat.hung(117.4, timing)


@pytest.mark.parametrize(
    ("held", "served_s", "limit", "due"),
    [(0, 99, 10, False), (10, 99, 10, False), (11, 99, 10, True), (11, 59, 10, False), (11, 99, 0, False)],
)
def test_who_holds_too_much_memory_is_replaced_but_not_again_at_once(
    held: int, served_s: float, limit: int, due: bool
) -> None:
    assert overweight(held, served_s, limit, Timing(recycle_s=60)) is due


def test_the_banner_names_addresses_and_commands_that_reach_them(tmp_path: Path) -> None:
    config = parse({"data-dir": tmp_path, "redis-url": "redis://:s3cret@h:1"}, {}, {})
    text = banner(config, {"grpc": 9001, "metrics": 9002})
    assert "grpc://127.0.0.1:9001" in text
    assert "http://127.0.0.1:9002/\n" in text
    assert text.count("--server 127.0.0.1:9001") == 3
    assert "s3cret" not in text
    assert "--server" not in banner(config, {"grpc": 8001, "metrics": 8002})
    (tmp_path / "tokens").touch()
    guarded = parse({"data-dir": tmp_path, "access-tokens": tmp_path / "tokens"}, {}, {})
    assert banner(guarded, {"grpc": 9001, "metrics": 9002}).count("--server 127.0.0.1:9001 --token-file FILE") == 3
    everywhere = parse({"host": "0.0.0.0", "insecure": True}, {}, {})
    assert "0.0.0.0:" not in banner(everywhere, {"grpc": 8001, "metrics": 8002})


@pytest.mark.parametrize(
    ("name", "mutual", "options"),
    [
        ("127.0.0.1", False, {"--tls-ca"}),
        ("gateway.example", False, {"--tls-ca", "--tls-name"}),
        ("*.example", True, {"--tls-ca", "--tls-name", "--tls-cert", "--tls-key"}),
        ("127.0.0.1", True, {"--tls-ca", "--tls-cert", "--tls-key"}),
    ],
)
def test_the_banners_commands_reach_a_server_behind_tls(
    tmp_path: Path, name: str, mutual: bool, options: set[str]
) -> None:
    """Its certificate is signed by an authority that the command is told nothing of."""
    authority = trustme.CA()
    leaf = authority.issue_cert(name)
    chain, key, ca = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(ca))
    given = {"tls-certificate": chain, "tls-key": key, **({"tls-client-ca": ca} if mutual else {})}
    pair = [(key.read_bytes(), chain.read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, ca.read_bytes() if mutual else None, mutual)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        text = banner(parse({**given, "data-dir": tmp_path}, {}, {}), {"grpc": port, "metrics": 1})
        (line,) = [line for line in text.splitlines() if " workers --server" in line]
        words = shlex.split(line.split(" workers ")[1])
        hint = dict(zip(words[::2], words[1::2], strict=True))
        assert set(hint) == options | {"--server"}
        certificate, own_key = (Path(hint["--tls-cert"]), Path(hint["--tls-key"])) if mutual else (None, None)
        tls = ClientTls(Path(hint["--tls-ca"]), certificate, own_key, hint.get("--tls-name", ""))
        with tls.channel(hint["--server"]) as channel:
            grpc.channel_ready_future(channel).result(20)
    finally:
        server.stop(None).wait()


def test_a_client_certificate_that_only_others_have_is_left_to_them(tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    chain, key, ca = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    clients.cert_pem.write_to_path(str(ca))
    config = parse({"tls-certificate": chain, "tls-key": key, "tls-client-ca": ca}, {}, {})
    assert "--tls-cert CERTIFICATE --tls-key KEY" in banner(config, {"grpc": 9001, "metrics": 9002})


def test_log_lines_hold_fields_and_cannot_be_forged() -> None:
    fields = {"model": "m\n2026 ERROR forged \x1b[31m", "revision": 3}
    record = logging.makeLogRecord(
        {"name": "gateway.x", "levelname": "INFO", "msg": "loaded %s", "args": ("a\nb",), **fields}
    )
    line = FieldFormatter("worker-0").format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert line.endswith(r"gateway.x: loaded a\nb model=m\n2026 ERROR forged \x1b[31m revision=3")


def test_a_field_that_the_text_holds_is_not_said_twice() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "request r1 failed", "said": {"request_id": "r1"}}
    )
    assert json.loads(JsonFormatter("worker-0").format(record))["request_id"] == "r1"
    assert FieldFormatter("worker-0").format(record).endswith("x: request r1 failed")


def test_a_json_line_holds_what_a_text_line_does_and_cannot_be_forged() -> None:
    try:
        raise ValueError("broken\n2026")
    except ValueError:
        error = sys.exc_info()
    fields = {"request_id": "a\nb\u2028", "level": "forged", "revision": 3, "path": Path("/x")}
    record = logging.makeLogRecord(
        {"name": "gateway.x", "levelname": "ERROR", "msg": "loaded %s", "args": ("a\nb",), "exc_info": error, **fields}
    )
    line = JsonFormatter("worker-0").format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (
        told.items()
        >= {
            "level": "error",
            "process": "worker-0",
            "logger": "gateway.x",
            "event": "loaded %s",
            "message": "loaded a\nb",
            "request_id": "a\nb\u2028",
            "field_level": "forged",
            "revision": 3,
            "path": "/x",
        }.items()
    )
    assert (told["error"]["type"], told["error"]["message"]) == ("ValueError", "broken\n2026")
    assert "test_instance.py" in told["error"]["stack"]
    named = logging.makeLogRecord({"msg": "x %d", "args": (1,), "event": "rules.stale"})
    assert json.loads(JsonFormatter("w").format(named))["event"] == "rules.stale"


def test_a_process_that_dies_of_an_error_says_so_in_one_object() -> None:
    program = (
        "import threading, warnings; from gateway.telemetry.logs import start_logging;"
        "start_logging('w', 'info', 'json'); warnings.warn('careful');"
        "t = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join(); {}['gone']"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line.get("error", {}).get("type")) for line in lines] == [
        ("warning", None),
        ("critical", "ZeroDivisionError"),
        ("critical", "KeyError"),
    ]
    assert done.returncode == 1
