"""The supervisor: starts the processes of a gateway, keeps them alive, and stops them in order.

It loads no gRPC, no Redis client, no ONNX Runtime and no numpy, so nothing that can crash or hang is in it. Children
are started by exec.

Order of the start: data directory locked, ports reserved, embedded Valkey, compactor, control process, workers.
Order of the stop:  workers finish their calls, control, compactor (which has then seen every row), sinks, Valkey.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from time import time
from typing import Final
from uuid import uuid4

import gateway
from gateway.errors import FailedPrecondition, GatewayError
from gateway.runtime import valkey
from gateway.runtime.banner import banner
from gateway.runtime.child import NO_SOCKETS, Settings, inherited_by
from gateway.runtime.child_programs import Programs, for_compactor, for_sinks
from gateway.runtime.config import Config, from_json
from gateway.runtime.control_socket import ControlSocket
from gateway.runtime.file_limit import raise_file_limit
from gateway.runtime.instance import KERNEL_SPREADS, STATE_FILE, InstanceLock, Ports, make_directories, write_state
from gateway.runtime.liveness import Timing
from gateway.runtime.platform_limits import platform_limits
from gateway.runtime.post_mortem import PostMortem
from gateway.runtime.service import Service
from gateway.runtime.service_notice import READY, STOPPING, notify
from gateway.telemetry.logs import start_logging

# The workers serve from their last-known-good rules without the store, so they do not wait for it for ever.
_STORE_PATIENCE_S: Final = 10.0
# What is promised is five seconds after the grace time; the rest is for the kills and the reaping.
_AFTER_GRACE_S: Final = 4.5
# It beats between the parts of its work, and writing one large file is one part. The time for which others, whom it
# lets go first, leave it no CPU does not count: killed for that it would begin the part again, and never end it.
_COMPACTOR_SILENCE_S: Final = 60.0
_OVERLAPPING: Final = 4  # workers beyond the configured number: replacements that start, old ones that drain
_log = logging.getLogger(__name__)


class Supervisor:
    """One run of a gateway. `config` holds the ports that were chosen and the store's URL.

    `sockets` are the listening sockets that children share, by their options.
    """

    def __init__(
        self,
        config: Config,
        *,
        programs: Programs,
        timing: Timing,
        sockets: Mapping[str, int] = NO_SOCKETS,
    ) -> None:
        self._sockets = sockets
        self._config = config.with_store(valkey.url(config)) if config.embedded_store else config
        self._timing = timing
        self._instance = secrets.token_hex(8)
        self._started_at = time()
        self._state_dirty = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_fast = asyncio.Event()
        self._roll = asyncio.Event()
        self._phase = "STARTING"
        self._store = (
            self._service("valkey", 0, programs.valkey, probe=lambda: valkey.answering(config))
            if config.embedded_store
            else None
        )
        self._compactor = self._service(
            "compactor", 0, programs.compactor, opening=for_compactor, silence_s=_COMPACTOR_SILENCE_S
        )
        self._sinks = (
            [self._service("sinks", 0, programs.sinks, opening=for_sinks, silence_s=_COMPACTOR_SILENCE_S)]
            if config.log.sinks
            else []
        )
        self._control = self._service("control", 0, programs.control)
        self._post_mortem = PostMortem(
            config.run_dir,
            hold_s=config.models.quarantine_seconds,
            changed=self._state_dirty.set,
            files_changed=self._roll.set,
            lives=config.process.workers + _OVERLAPPING,
        )
        self._workers = [
            self._service("worker", slot, programs.worker, post_mortem=self._post_mortem)
            for slot in range(config.process.workers)
        ]

    @property
    def _services(self) -> list[Service]:
        first = [self._store] if self._store is not None else []
        return [*first, self._compactor, *self._sinks, self._control, *self._workers]

    async def run(self, announce: Callable[[], None]) -> None:
        """Returns when everything has stopped, after SIGTERM or SIGINT. `announce` is called once all serves."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._roll.set)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(step)
                for step in (
                    self._check(),
                    self._recycle(),
                    self._write_states(),
                    self._roll_on_request(),
                    self._start(group, announce),
                )
            ]
            await self._stop.wait()
            await self._stop_all()
            for task in background:
                task.cancel()
        self._post_mortem.close()
        self._phase = "STOPPED"
        self._write_state()

    async def _start(self, group: asyncio.TaskGroup, announce: Callable[[], None]) -> None:
        if self._store is not None:
            group.create_task(self._store.run())
            try:
                async with asyncio.timeout(_STORE_PATIENCE_S):
                    await self._store.was_ready.wait()
            except TimeoutError:
                why = self._store.reason or f"it has been starting for {_STORE_PATIENCE_S:g} s"
                _log.error("the embedded Valkey does not answer (%s): starting from what is on disk", why)
        rest = [service for service in self._services if service is not self._store]
        for service in rest:
            if not self._stop.is_set():
                group.create_task(service.run())
        for service in rest:
            await service.was_ready.wait()
        self._phase = "SERVING"
        self._state_dirty.set()
        announce()

    async def _stop_all(self) -> None:
        """Stops everything within the grace time and five seconds, at once after a second signal."""
        self._phase = "STOPPING"
        notify(STOPPING)
        _log.info("stopping: running calls have %g s", self._config.process.grace_seconds)
        async with asyncio.TaskGroup() as group:
            rush = group.create_task(self._rush())
            loop = asyncio.get_running_loop()
            end = loop.time() + self._config.process.grace_seconds + _AFTER_GRACE_S
            steps = ((self._workers, 3.5), ([self._control], 3.0), ([self._compactor], 1.0), (self._sinks, 0.3))
            for services, reserve_s in steps:
                limit_s = max(0.5, end - reserve_s - loop.time())
                async with asyncio.TaskGroup() as together:
                    for service in services:
                        # What the workers have logged becomes Parquet before the end, whatever the compactor died of.
                        finishes = service is self._compactor and not self._stop_fast.is_set()
                        together.create_task(service.finish(limit_s) if finishes else service.stop(limit_s))
            if self._store is not None:
                await self._store.stop(max(0.5, end - loop.time()))
            rush.cancel()

    async def _rush(self) -> None:
        await self._stop_fast.wait()
        _log.warning("second signal: stopping at once")
        for service in self._services:
            service.kill("stopped at once on a second signal")

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._stop_fast.set()
        self._stop.set()

    async def _check(self) -> None:
        """Finds children that hang; its own lateness is nobody's fault."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        no_standby_until = 0.0
        while True:
            await asyncio.sleep(self._timing.check_s)
            now = loop.time()
            late_s = now - before - self._timing.check_s
            before = now
            for service in self._services:
                service.check(now, late_s if late_s > self._timing.check_s else 0.0)
            for worker in self._workers:
                if worker.drop_standby(now):
                    no_standby_until = now + self._timing.standby_pause_s
            self._stand_by(now, no_standby_until)
            self._post_mortem.expire()

    def _stand_by(self, now: float, no_standby_until: float) -> None:
        """Lets a successor of a silent worker get ready: one at a time, for that costs the others memory and CPU."""
        if self._stop.is_set() or now < no_standby_until or any(worker.stands_by for worker in self._workers):
            return
        for worker in self._workers:
            if worker.suspect(now):
                worker.stand_by()
                return

    async def _recycle(self) -> None:
        """Replaces workers that hold too much memory, one after the other."""
        limit_bytes = self._config.process.worker_memory_bytes
        while limit_bytes:
            await asyncio.sleep(self._timing.memory_look_s)
            for worker in self._workers:
                await worker.recycle(limit_bytes)

    async def _roll_on_request(self) -> None:
        """Rolls one worker after the other; requests that come meanwhile are one more round together."""
        while True:
            await self._roll.wait()
            self._roll.clear()
            _log.info("rolling restart of %d workers", len(self._workers))
            for worker in self._workers:
                if not await worker.roll():
                    _log.error("rolling restart ends at %s: %s", worker.name, worker.reason)
                    break

    async def _write_states(self) -> None:
        while True:
            await self._state_dirty.wait()
            self._state_dirty.clear()
            self._write_state()

    def _write_state(self) -> None:
        listen = self._config.listen
        state = {
            "instance": self._instance,
            "pid": os.getpid(),
            "phase": self._phase,
            "started_at": self._started_at,
            "host": listen.host,
            "metrics_address": self._config.operators_host,
            "ports": _numbers(self._config),
            "models": {
                "repository": self._config.models.repository,
                "allow_links_to": self._config.models.allow_links_to,
            },
            "children": [service.describe() for service in self._services],
        }
        try:
            write_state(self._config.run_dir / STATE_FILE, state)
        except OSError as error:  # a full disk must not stop the keeping alive
            _log.warning("%s was not written: %s", STATE_FILE, error.strerror)

    def _service(
        self,
        role: str,
        slot: int,
        command: tuple[str, ...],
        *,
        opening: Callable[[Settings], str] = Settings.to_json,
        silence_s: float = 0.0,
        probe: Callable[[], Awaitable[None]] | None = None,
        post_mortem: PostMortem | None = None,
    ) -> Service:
        sockets = inherited_by(role, self._sockets)

        def settings() -> Settings:
            return Settings(
                config=self._config,
                role=role,
                slot=slot,
                instance=self._instance,
                boot=uuid4().hex,
                supervisor_pid=os.getpid(),
                inherits=tuple(sockets),
            )

        timing = replace(self._timing, silence_s=silence_s, forgives_waits=True) if silence_s else self._timing
        return Service(
            command,
            settings,
            timing=timing,
            changed=self._state_dirty.set,
            opening=opening,
            probe=probe,
            post_mortem=post_mortem,
            sockets=sockets,
        )


def supervise(config: Config, *, programs: Programs | None = None, timing: Timing | None = None) -> None:
    """Runs a gateway until it is told to stop.

    Raises: FailedPrecondition if the data directory or a port is taken, or cannot be used.
    """
    os.umask(0o077)
    raise_file_limit()
    listen = config.listen
    if listen.transport != "ngh2" and not KERNEL_SPREADS:
        raise FailedPrecondition(
            f"transport {listen.transport!r} needs a kernel that spreads connections over the sockets of a port, as "
            "Linux does: leave --transport out"
        )
    with ExitStack() as stack:
        stack.enter_context(InstanceLock(config.process.data_dir))
        ports = stack.enter_context(Ports(listen.host, config.ports, config.elsewhere))
        make_directories(config)
        config = config.with_ports(ports.numbers)
        control = stack.enter_context(ControlSocket(listen.control_socket)) if listen.control_socket else None
        sockets = ports.inherited | ({"control-socket": control.fileno()} if control is not None else {})
        for warning in config.warnings:
            _log.warning("%s", warning)
        if missing := platform_limits(sys.platform):
            features = "; ".join(limit.feature for limit in missing)
            _log.warning("%s lacks what Linux has (docs/platforms.md): %s", sys.platform, features)

        def announce() -> None:
            notify(READY, f"STATUS={config.process.workers} workers serve")
            if config.process.log_format == "json":
                said = {"event": "gateway.ready", "ports": _numbers(config), "workers": config.process.workers}
                _log.info("gateway %s is ready", gateway.__version__, extra={"said": said})
                return
            sys.stdout.write(banner(config, _numbers(config)))
            sys.stdout.flush()

        _log.info("starting on %s with %d workers", listen.host, config.process.workers)
        asyncio.run(_supervised(config, programs or Programs(), timing or Timing(), sockets, announce))
        _log.info("stopped")


async def _supervised(
    config: Config, programs: Programs, timing: Timing, sockets: Mapping[str, int], announce: Callable[[], None]
) -> None:
    await Supervisor(config, programs=programs, timing=timing, sockets=sockets).run(announce)


def _numbers(config: Config) -> dict[str, int]:
    """Returns the ports that are served, as the state file and the banner name them."""
    return {option.removesuffix("-port"): number for option, number in config.ports.items()}


def main() -> int:
    """Reads the configuration from standard input, where the command line put it, and supervises."""
    config = from_json(sys.stdin.read())
    start_logging("supervisor", config.process.log_level, config.process.log_format)
    try:
        supervise(config)
    except GatewayError as error:
        if config.process.log_format == "json":
            _log.critical("%s", error, extra={"said": {"event": "gateway.failed"}})
        else:
            sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
