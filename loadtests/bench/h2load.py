"""h2load: the client that drives the servers, and what it says of a run."""

import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from loadtests.bench.body import METHOD
from loadtests.bench.probe import KEY_HEADER
from loadtests.bench.rest_body import RestRequest

MISSING: Final = "h2load is not installed: it is part of nghttp2 (Debian and Ubuntu: apt-get install nghttp2-client)"
_TURN_S: Final = 0.1
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_FINISHED: Final = re.compile(r"finished in ([\d.]+)(us|ms|s|m)\b")
_COUNTS: Final = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_GOOD: Final = re.compile(r"status codes: (\d+) 2xx")
_DATA: Final = re.compile(r"\((\d+)\) data")


class LoadFailed(Exception):
    """h2load did not come to an end, or what it printed is not understood."""


def installed() -> bool:
    return shutil.which("h2load") is not None


def connections_for(concurrency: int) -> int:
    """Few connections with many streams, as gRPC clients have: 1, 4, 8, 16 for 1, 16, 64, 256 calls at a time."""
    return max(1, int(concurrency**0.5))


@dataclass(frozen=True, slots=True)
class Load:
    """What a run came to. `data_bytes` are those of DATA frames; latencies in milliseconds, empty unless logged."""

    succeeded: int
    failed: int
    good_status: int
    data_bytes: int
    seconds: float
    client_cpu_s: float
    latencies_ms: np.ndarray[tuple[int], np.dtype[np.float64]]

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share)) if len(self.latencies_ms) else float("nan")

    def fault(self, answer_bytes: int) -> str:
        """What is wrong with the answers, in words; empty if every one has the length of the checked one.

        A gRPC error is a 2xx to h2load, but it carries no message, so its bytes are missing.
        """
        if self.failed or self.good_status != self.succeeded:
            return f"{self.failed} calls failed, {self.succeeded - self.good_status} had another status than 2xx"
        wanted = answer_bytes * self.succeeded
        if self.data_bytes != wanted:
            return f"the answers have {self.data_bytes} bytes together, {self.succeeded} right ones have {wanted}"
        return ""


@dataclass(frozen=True, slots=True)
class Order:
    """What to send: the framed body in a file, to an address, one client for each key."""

    address: str
    body: Path
    keys: tuple[str, ...]
    concurrency: int
    authorization: str = ""
    rest: RestRequest | None = None  # sent instead, over HTTP/1.1, on a connection for each call at a time

    def commands(self, count: int, logs: Sequence[Path]) -> list[list[str]]:
        """The command of each client: they share connections and calls evenly."""
        clients = min(len(self.keys), self.concurrency)
        rest = self.rest
        connections = max(1, (self.concurrency if rest else connections_for(self.concurrency)) // clients)
        streams = max(1, self.concurrency // (connections * clients))
        made = []
        for place, key in enumerate(self.keys[:clients]):
            share = max(connections, count // clients)
            command = ["h2load", "-t1", "-n", str(share), "-c", str(connections), "-m", str(streams)]
            if logs:
                command += ["--log-file", str(logs[place])]
            caller = (f"authorization: {self.authorization}",) if self.authorization else ()
            kind = rest.fields if rest else ("content-type: application/grpc", "te: trailers")
            for header in (*kind, f"{KEY_HEADER}: {key}", *caller):
                command += ["-H", header]
            if rest:
                command.append("--h1")
            body, path = (rest.body, rest.path) if rest else (self.body, METHOD)
            made.append([*command, "-d", str(body), f"http://{self.address}{path}"])
        return made


def drive(order: Order, count: int, *, limit_s: float, logged: bool, tick: Callable[[], None]) -> Load:
    """That many calls have been answered, or were given up. `tick` is called about ten times a second meanwhile.

    Raises: LoadFailed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        logs = [Path(folder) / str(place) for place in range(len(order.keys))] if logged else []
        commands = order.commands(count, logs)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        texts = _run_all(commands, limit_s=limit_s, tick=tick)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        latencies = _latencies_ms([log for log in logs if log.exists()])
    client_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    parts = [parse(text) for text in texts]
    return Load(
        succeeded=sum(part.succeeded for part in parts),
        failed=sum(part.failed for part in parts),
        good_status=sum(part.good_status for part in parts),
        data_bytes=sum(part.data_bytes for part in parts),
        seconds=max(part.seconds for part in parts),
        client_cpu_s=client_cpu_s,
        latencies_ms=latencies,
    )


def _run_all(commands: Sequence[Sequence[str]], *, limit_s: float, tick: Callable[[], None]) -> list[str]:
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    end = time.monotonic() + limit_s
    try:
        while any(client.poll() is None for client in clients):
            if time.monotonic() > end:
                raise LoadFailed(f"the calls were not answered within {limit_s:.0f} s")
            tick()
            _wait(clients)
        return [client.communicate()[0] for client in clients]
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
            client.wait()
            if client.stdout is not None:
                client.stdout.close()


def _wait(clients: Sequence[subprocess.Popen[str]]) -> None:
    running = next((client for client in clients if client.poll() is None), None)
    if running is not None:
        try:
            running.wait(_TURN_S)
        except subprocess.TimeoutExpired:
            pass


def parse(text: str) -> Load:
    """What h2load printed at the end. Raises: LoadFailed."""
    finished, counts, good, data = (pattern.search(text) for pattern in (_FINISHED, _COUNTS, _GOOD, _DATA))
    if finished is None or counts is None or good is None or data is None:
        raise LoadFailed(f"h2load: {' '.join(text.split())[-300:] or 'printed nothing'}")
    succeeded, *others = map(int, counts.groups())
    return Load(
        succeeded=succeeded,
        failed=max(others),  # an errored call is a failed one as well
        good_status=int(good[1]),
        data_bytes=int(data[1]),
        seconds=float(finished[1]) * _UNITS_S[finished[2]],
        client_cpu_s=0.0,
        latencies_ms=np.zeros(0),
    )


def _latencies_ms(logs: Sequence[Path]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The third column of each line is the time to the end of the answer, in microseconds."""
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return np.array([int(line.split("\t")[2]) for line in lines], np.float64) / 1000
