"""Examines a host before a gateway starts on it: one table of checks, each with what was seen and what to do."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.errors import GatewayError
from gateway.features.store_urls import store_urls
from gateway.runtime import host_checks, store_visit
from gateway.runtime.config import Config
from gateway.runtime.cpu_quota import cpu_quota
from gateway.runtime.host_finding import HostFinding, HostState, fail, ok, unknown, warn
from gateway.runtime.memory_allowance import memory_allowance
from gateway.runtime.store_visit import StoreVisit
from loaders.errors import LoaderError


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks look at: the configuration, and what was learned once for several of them."""

    config: Config
    running: str  # the process of the gateway that runs on this data directory, "" if none does
    store: StoreVisit | None  # None: the store is embedded
    feature_stores: Mapping[str, StoreVisit]
    now_s: float

    @property
    def has_rules(self) -> bool:
        """Whether a worker has left rules on this disk; whether they can be read, its start will tell."""
        return any(self.config.rules_file.parent.glob("worker-*[0-9]"))


def _configuration(patient: Patient) -> HostFinding:
    warnings = patient.config.warnings
    return warn("; ".join(warnings), "see the README's table of options") if warnings else ok("read")


def _of_store(judge: Callable[[StoreVisit], HostFinding], patient: Patient) -> HostFinding:
    return ok("embedded") if patient.store is None else judge(patient.store)


def _reach(found: StoreVisit, *, patient: Patient) -> HostFinding:
    return store_visit.judge_reach(found, has_rules=patient.has_rules)


def _feature_stores(patient: Patient) -> HostFinding:
    """Returns what was seen of every feature store, with the worst verdict and what to do about that."""
    judged = {name: store_visit.judge_feature_store(found) for name, found in patient.feature_stores.items()}
    if not judged:
        return ok("none")
    bad = {name: finding for name, finding in judged.items() if finding.verdict is not HostState.OK}
    seen = "; ".join(f"{name!r} {_without_subject(finding.seen, name)}" for name, finding in (bad or judged).items())
    if not bad:
        return ok(seen)
    return HostFinding(worst(bad), seen, "; ".join(dict.fromkeys(finding.remedy for finding in bad.values())))


def _without_subject(seen: str, name: str) -> str:
    return seen.removeprefix(f"{_called(name)} ")


def _called(name: str) -> str:
    return f"the feature store {name!r}"


def _cpus(patient: Patient) -> HostFinding:
    return host_checks.judge_cpus(os.cpu_count() or 1, cpu_quota(), patient.config.process.workers)


def _clock(patient: Patient) -> HostFinding:
    if patient.store is None or patient.store.ahead_s is None:
        alone = host_checks.judge_clock(patient.now_s, host_checks.installed_at_s())
        return (
            alone if alone.verdict is HostState.FAIL or patient.store is None else store_visit.judge_skew(patient.store)
        )
    return store_visit.judge_skew(patient.store)


CHECKS: Final[Mapping[str, tuple[str, Callable[[Patient], HostFinding]]]] = {
    "configuration": ("options, files and environment make sense together", _configuration),
    "build": ("the hot path is compiled", lambda patient: host_checks.check_build()),
    "platform": (
        "the gateway has here all that it has on Linux",
        lambda patient: host_checks.check_platform(sys.platform),
    ),
    "ports": ("the ports are free", lambda patient: host_checks.check_ports(patient.config, patient.running)),
    "data-dir": (
        "this user can write there, and nobody else runs on it",
        lambda patient: host_checks.check_data_dir(patient.config.process.data_dir, patient.running),
    ),
    "disk": ("room and inodes", lambda patient: host_checks.check_disk(patient.config.process.data_dir)),
    "files": (
        "the limit of open files is enough for the connections",
        lambda patient: host_checks.check_files(patient.config.listen.max_connections),
    ),
    "store": (
        "the store answers, or this host has rules on its disk",
        lambda patient: _of_store(partial(_reach, patient=patient), patient),
    ),
    "store-version": ("Redis 7.0, Valkey 7.2 or newer", partial(_of_store, store_visit.judge_version)),
    "store-persistence": ("rules are written to a disk", partial(_of_store, store_visit.judge_persistence)),
    "store-policy": ("rules are not evicted", partial(_of_store, store_visit.judge_policy)),
    "feature-stores": ("each feature store answers, and has all rows", _feature_stores),
    "clock": ("this host's clock and the store's agree", _clock),
    "repository": ("the models can be listed", lambda patient: host_checks.check_repository(patient.config)),
    "locale": ("the locale of text normalisers is there", lambda patient: host_checks.check_locale()),
    "cpus": ("as many workers as the quota has CPUs for", _cpus),
    "memory": (
        "what may be held at once fits into the limit",
        lambda patient: host_checks.judge_memory(memory_allowance(), patient.config),
    ),
    "certificate": (
        "the certificate does not end soon",
        lambda patient: host_checks.check_certificate(patient.config, patient.now_s),
    ),
    "issuer": (
        "the keys of JWTs can be fetched",
        lambda patient: host_checks.check_issuer(patient.config.access.jwt_keys),
    ),
    "secrets": (
        "nobody else can read keys or change who may do what",
        lambda patient: host_checks.check_secrets(patient.config),
    ),
}  # fmt: skip


async def examine(configure: Callable[[], Config]) -> dict[str, HostFinding]:
    """Returns the finding of each check in the order of the table. Without a configuration the others are unknown."""
    try:
        config = configure()
    except GatewayError as error:
        rest = dict.fromkeys(CHECKS, unknown("there is no configuration", "mend that first"))
        return {**rest, "configuration": fail(str(error), "mend the option or the file that is named")}
    store = None if config.embedded_store else await store_visit.visit(config.store.redis_url, time.time)
    urls = store_urls(config.features.stores)
    visits = await asyncio.gather(
        *(store_visit.visit(url, time.time, store=_called(name)) for name, url in urls.items())
    )
    running = host_checks.running_in(config.process.data_dir)
    return dict(_findings(Patient(config, running, store, dict(zip(urls, visits, strict=True)), time.time())))


def _findings(patient: Patient) -> Iterator[tuple[str, HostFinding]]:
    for name, (_, check) in CHECKS.items():
        try:
            yield name, check(patient)
        except (OSError, GatewayError, LoaderError) as error:
            yield name, unknown(f"could not be looked at: {error}", "run this as the gateway's user")


def worst(findings: Mapping[str, HostFinding]) -> HostState:
    """Returns the worst verdict; what is unknown is worse than a warning."""
    order = (HostState.OK, HostState.WARN, HostState.UNKNOWN, HostState.FAIL)
    return max((finding.verdict for finding in findings.values()), key=order.index, default=HostState.UNKNOWN)
