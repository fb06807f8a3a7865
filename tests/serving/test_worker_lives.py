"""That a worker has died is known before the first of its connections is closed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.serving.worker_lives import LIFE_BYTES, WorkerLives

WORKER = """
import os, socket, sys, threading, time
from pathlib import Path
from gateway.serving.worker_lives import WorkerLives
lives = WorkerLives(Path(sys.argv[1]))
print(lives.claim(sys.argv[2]), flush=True)
connection = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
for _ in range(4):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
sys.stdin.readline()
if sys.argv[4] == "0":
    os._exit(0)
os.kill(os.getpid(), int(sys.argv[4]))
time.sleep(60)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(20)
        yield opened


def worker(path: Path, boot: str, listener: socket.socket, number: int) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", WORKER, str(path), boot, str(listener.getsockname()[1]), str(number)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGFPE, signal.SIGSEGV, signal.SIGKILL, 0])
def test_whoever_sees_the_connection_end_finds_the_mark(tmp_path: Path, listener: socket.socket, number: int) -> None:
    lives = WorkerLives.make(tmp_path / "lives", 2)
    seen = lives.memory[lives.watched]
    for turn in range(3):
        boot = f"boot-{turn}"
        child = worker(tmp_path / "lives", boot, listener, number)
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        connection, _ = listener.accept()
        assert lives.dead() == []
        child.stdin.write(b"\n")
        child.stdin.flush()
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        assert lives.dead() == [boot]
        assert lives.memory[lives.watched] != seen
        child.stdin.close()
        child.stdout.close()
        child.wait()
        lives.bury("another")
        assert lives.dead() == [boot]
        lives.bury(boot)
        assert lives.dead() == []
        connection.close()


def test_there_is_room_for_so_many_and_no_more(tmp_path: Path, listener: socket.socket) -> None:
    lives = WorkerLives.make(tmp_path / "lives", 1)
    child = worker(tmp_path / "lives", "one", listener, signal.SIGKILL)
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    assert not lives.claim("two")
    child.kill()
    child.communicate()
    assert not lives.claim("two")  # nobody has examined what it died of
    lives.bury("one")
    assert not lives.claim("x" * (LIFE_BYTES + 1))
    assert not WorkerLives.make(tmp_path / "none", 0).claim("two")
    assert os.stat(tmp_path / "lives").st_mode & 0o777 == 0o600
