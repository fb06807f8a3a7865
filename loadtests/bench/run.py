"""One timed run: a server under h2load, with what it used meanwhile."""

import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from typing import Final

from loadtests.bench.cases import Case
from loadtests.bench.h2load import LoadFailed, Order, drive
from loadtests.bench.machine import Calm, busy_s, loop_ms
from loadtests.bench.probe import WrongAnswer, probing
from loadtests.bench.processes import Usage, usage
from loadtests.bench.rest_body import answer_bytes
from loadtests.bench.servers import Server

_WARM_UP_S: Final = 0.4
_MOST_WARM_UP_CALLS: Final = 1_000_000
_SCRAPE_EACH_S: Final = 5.0
_SAMPLE_EACH_S: Final = 0.5
_SETTLE_S: Final = 15.0
_SETTLED_CORES: Final = 0.1
_ANY_KEY: Final = "user-0"  # of a server that has no arms


@dataclass(frozen=True, slots=True)
class Row:
    """What one run came to.

    Units: CPU in microseconds of user and system time for each request, of all processes of the server and of some of
    them; `later_us` is what they used after the timed part to finish its work (the log's files). None: not known.
    """

    system: str
    model: str
    concurrency: int
    requests: int
    seconds: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    client_cores: float
    loop_before_ms: float
    loop_after_ms: float
    cpu_us: float | None = None
    workers_us: float | None = None
    compactor_us: float | None = None
    later_us: float | None = None
    rss_mib: float | None = None
    workers_rss_mib: float | None = None
    cores_of_workers: tuple[float, ...] = ()
    other_cores: float | None = None
    round: int = 0
    disturbed: bool = False
    tries: int = 1
    fault: str = ""
    alone: bool = False  # no server: its latencies are those of runs, not of calls that queue

    @classmethod
    def failed(cls, system: str, model: str, concurrency: int, fault: str) -> "Row":
        """That of a run that has no figures."""
        nothing = float("nan")
        return cls(
            system=system, model=model, concurrency=concurrency, requests=0, seconds=0,
            requests_per_s=nothing, p50_ms=nothing, p99_ms=nothing, client_cores=nothing,
            loop_before_ms=nothing, loop_after_ms=nothing, fault=fault,
        )  # fmt: skip

    @property
    def calm(self) -> Calm:
        return Calm(self.other_cores or 0.0, self.loop_before_ms, self.loop_after_ms)


class Watch:
    """What is done while the client runs: memory is sampled, metrics are scraped as a collector would."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sample_at = self._scrape_at = 0.0
        self.rss_mib = self.workers_rss_mib = 0.0

    def tick(self) -> None:
        now = time.monotonic()
        if now >= self._sample_at and self._server.pid:
            self._sample_at = now + _SAMPLE_EACH_S
            self.sampled(usage(self._server.pid))
        if now >= self._scrape_at and self._server.metrics_url:
            self._scrape_at = now + _SCRAPE_EACH_S
            self._scrape()

    def sampled(self, seen: Usage) -> None:
        self.rss_mib = max(self.rss_mib, seen.total_rss_mib)
        self.workers_rss_mib = max(self.workers_rss_mib, seen.rss_mib.get("worker", 0.0))

    def _scrape(self) -> None:
        try:
            caller = {"Authorization": self._server.authorization} if self._server.authorization else {}
            request = urllib.request.Request(self._server.metrics_url, headers=caller)
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
        except urllib.error.URLError as error:
            raise LoadFailed(f"{self._server.metrics_url}: {error.reason}") from None


@dataclass(frozen=True, slots=True)
class Driver:
    """Runs cases against servers. `arms`: keys of `one` arm in a run, or of `both`. Units: seconds."""

    seconds: float
    arms: str

    def run(self, server: Server, case: Case, concurrency: int) -> Row:
        """A row; its `fault` says what is wrong with it, if anything is."""
        try:
            keys, sizes = self._asked(server, case)
            rest = case.rest[server.rest] if server.rest else None
            if rest is not None:
                sizes = {answer_bytes(server.rest_address, rest, case.model, case.expected, key) for key in keys}
            if len(sizes) != 1:
                raise WrongAnswer(f"{case.model.name}: the arms' answers have {sorted(sizes)} bytes")
            address = server.rest_address if rest is not None else server.address
            order = Order(address, case.body, keys, concurrency, server.authorization, rest)
            return self._timed(server, order, case.model.name, sizes.pop())
        except (LoadFailed, WrongAnswer) as error:
            return Row.failed(server.label, case.model.name, concurrency, str(error))

    def _asked(self, server: Server, case: Case) -> tuple[tuple[str, ...], set[int]]:
        """The keys to call with, and over gRPC the lengths of their checked answers. Raises: WrongAnswer."""
        if not server.address:
            return (_ANY_KEY,), set()
        with probing(server.address, case.model, case.expected, server.authorization) as probe:
            keys = tuple(probe.keys_of_arms().values())
            keys = keys if self.arms == "both" else keys[:1]
            return keys, set() if server.rest else {probe.answer_bytes(key) for key in keys}

    def _timed(self, server: Server, order: Order, model: str, answer_bytes: int) -> Row:
        count = max(2 * order.concurrency, int(self._rate(order, server) * self.seconds))
        settle(server)
        watch = Watch(server)
        loop_before_ms = loop_ms()
        used_before = usage(server.pid) if server.pid else None
        own, busy, begin = time.process_time(), busy_s(), time.monotonic()
        load = drive(order, count, limit_s=self.seconds * 8 + 30, logged=True, tick=watch.tick)
        elapsed_s, busy, own = time.monotonic() - begin, busy_s() - busy, time.process_time() - own
        used_after = usage(server.pid) if server.pid else None
        server.tally.calls += load.succeeded
        row = Row(
            system=server.label,
            model=model,
            concurrency=order.concurrency,
            requests=load.succeeded,
            seconds=load.seconds,
            requests_per_s=load.succeeded / load.seconds if load.seconds else 0.0,
            p50_ms=load.percentile_ms(50),
            p99_ms=load.percentile_ms(99),
            client_cores=load.client_cpu_s / elapsed_s,
            loop_before_ms=loop_before_ms,
            loop_after_ms=loop_ms(),
            fault=load.fault(answer_bytes),
        )
        if used_before is None or used_after is None or not load.succeeded:
            return row
        watch.sampled(used_after)
        server_s = used_after.total_cpu_s - used_before.total_cpu_s
        return replace(
            _with_usage(row, used_before, used_after, elapsed_s),
            rss_mib=watch.rss_mib,
            workers_rss_mib=watch.workers_rss_mib or None,
            later_us=settle(server) / load.succeeded * 1e6,
            other_cores=max(0.0, busy - server_s - load.client_cpu_s - own) / elapsed_s,
        )

    def _rate(self, order: Order, server: Server) -> float:
        """Requests per second of a burst that takes long enough to tell; it warms the server up as well."""
        count = max(8, 2 * order.concurrency)
        while True:
            load = drive(order, count, limit_s=60, logged=False, tick=_nothing)
            if load.failed or not load.succeeded:
                raise LoadFailed(f"{load.failed} of {count} calls failed while warming up")
            server.tally.calls += load.succeeded
            if load.seconds >= _WARM_UP_S or count >= _MOST_WARM_UP_CALLS:
                return load.succeeded / load.seconds
            count = int(count * min(20.0, max(2.0, 1.5 * _WARM_UP_S / max(load.seconds, 1e-3))))


def _with_usage(row: Row, before: Usage, after: Usage, elapsed_s: float) -> Row:
    def role_us(role: str) -> float | None:
        if role not in after.cpu_s:
            return None
        return (after.cpu_s[role] - before.cpu_s.get(role, 0.0)) / row.requests * 1e6

    pairs = zip(before.worker_cpu_s, after.worker_cpu_s, strict=False)
    return replace(
        row,
        cpu_us=(after.total_cpu_s - before.total_cpu_s) / row.requests * 1e6,
        workers_us=role_us("worker"),
        compactor_us=role_us("compactor"),
        cores_of_workers=tuple((now - then) / elapsed_s for then, now in pairs),
    )


def settle(server: Server) -> float:
    """The CPU seconds that the server used until it had nothing left to do, or for as long as is waited for that."""
    if not server.pid:
        return 0.0
    begin = before = usage(server.pid).total_cpu_s
    end = time.monotonic() + _SETTLE_S
    while time.monotonic() < end:
        time.sleep(_SAMPLE_EACH_S)
        now = usage(server.pid).total_cpu_s
        if now - before <= _SETTLED_CORES * _SAMPLE_EACH_S:
            return now - begin
        before = now
    return before - begin


def _nothing() -> None:
    pass
