"""A child of the supervisor with nothing to do, run as a program: its life follows files in the data directory.

`<role>-<slot>.crash`: it ends with status 3 before it is ready. `<role>.slow`: it takes a second to become ready.
`<role>.busy`: one turn of its loop lasts 2.5 s, in which it says that it makes progress, and writes `worked`.
`<role>.stubborn`: it does not stop when asked. `<role>.heavy`: it holds 128 MiB more. It serves its role's port
(SO_REUSEPORT). With the argument `compactor` it is told what the compactor is told, and adds its pid to the file
`compacted` when it stops, and whether it was to hurry. `compactor.mortal`: the one that finds this file when it stops
takes it away, and is killed.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from gateway.runtime.child import Settings, SupervisorLink, read_settings, supervisor_link


def listening(settings: Settings) -> socket.socket:
    listen = settings.config.listen
    port = {"worker": listen.grpc_port, "control": listen.metrics_port}[settings.role]
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((listen.host, port))
    made.listen(128)
    made.setblocking(False)
    return made


def answer(listener: socket.socket) -> None:
    """Everyone who has connected by now has the answer."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        with connection:
            connection.sendall(b"here\n")


def work(link: SupervisorLink) -> None:
    """Keeps the loop for longer than a worker may be silent."""
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        time.sleep(0.05)
        link.progress()


async def serve(settings: Settings, link: SupervisorLink) -> None:
    data_dir = settings.config.process.data_dir
    if (data_dir / f"{settings.role}-{settings.slot}.crash").exists():
        sys.exit(3)
    if (data_dir / f"{settings.role}.slow").exists():
        await asyncio.sleep(1.0)
    if not await link.turn(settings):
        return
    heavy = (data_dir / f"{settings.role}.heavy").exists()
    _weight = b"x" * (128 << 20) if heavy else b""
    listener = listening(settings)
    asyncio.get_running_loop().add_reader(listener, answer, listener)
    link.ready()
    if (data_dir / f"{settings.role}.busy").exists():
        work(link)
        (data_dir / "worked").touch()
    await link.stopping.wait()
    link.draining()
    asyncio.get_running_loop().remove_reader(listener)
    answer(listener)
    listener.close()
    if (data_dir / f"{settings.role}.stubborn").exists():
        await asyncio.Event().wait()


async def main(settings: Settings) -> None:
    async with supervisor_link() as link:
        await serve(settings, link)


def start_slowly(data_dir: Path) -> None:
    """Takes a second, in which a signal ends the process, as while it imports."""
    if (data_dir / "compactor.slow").exists():
        time.sleep(1.0)


async def compact(wal_dir: Path, *, hurried: bool) -> None:
    async with supervisor_link() as link:
        link.ready()
        await link.stopping.wait()
    data_dir = wal_dir.parent.parent
    if (data_dir / "compactor.mortal").exists():
        (data_dir / "compactor.mortal").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    with (data_dir / "compacted").open("a") as file:
        file.write(f"{os.getpid()} {'hurried' if hurried else 'nice'}\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["compactor"]:
        told = json.loads(sys.stdin.readline())
        start_slowly(Path(told["log_directory"]).parent.parent)
        asyncio.run(compact(Path(told["log_directory"]), hurried=told["hurried"]))
    else:
        asyncio.run(main(read_settings()))
