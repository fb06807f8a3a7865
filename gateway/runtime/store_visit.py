"""What a visit to the routing store tells: whether it answers, what it is, how it keeps what it is given, its clock."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import GatewayError
from gateway.routing.store.store_link import Link
from gateway.routing.store.store_reply import many, number, text
from gateway.runtime.host_finding import HostFinding, HostState, fail, ok, unknown, warn

OLDEST: Final[Mapping[str, tuple[int, int]]] = {"redis": (7, 0), "valkey": (7, 2)}
_SKEW_WARN_S: Final = 1.0
_SKEW_FAIL_S: Final = 30.0  # what is allowed between this host's clock and an issuer's of tokens


@dataclass(frozen=True, slots=True)
class StoreVisit:
    """`trouble` says why the store did not answer, `withheld` why it does not describe itself; "" if it does.

    Units: `ahead_s` is how far its clock is ahead of this host's; None where it was not told.
    """

    trouble: str = ""
    withheld: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    ahead_s: float | None = None


async def visit(url: str, wall_s: Callable[[], float], *, store: str = "the routing store") -> StoreVisit:
    """Returns what the store says of itself; it is asked three questions, and nothing is written.

    `store` is what failures call it.
    """
    link = Link(url, name="doctor", timeout_s=2.0, connections=1, store=store)
    try:
        await link.call("PING")
        ahead_s: float | None = None
        try:
            asked_s = wall_s()
            seconds, micros = many(await link.call("TIME"))
            ahead_s = number(seconds) + number(micros) / 1e6 - (asked_s + wall_s()) / 2
            facts, withheld = _facts(text(await link.call("INFO"))), ""
        except GatewayError as error:
            facts, withheld = {}, str(error)
        return StoreVisit(withheld=withheld, facts=facts, ahead_s=ahead_s)
    except GatewayError as error:
        return StoreVisit(trouble=str(error))
    finally:
        await link.aclose()


def _facts(info: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in info.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, value in pairs}


def judge_reach(found: StoreVisit, *, has_rules: bool) -> HostFinding:
    """A host that has rules on its disk serves without the store; one that has none waits for it."""
    if not found.trouble:
        return ok(f"answers, role {found.facts['role']}" if "role" in found.facts else "answers")
    if has_rules:
        return warn(found.trouble, "workers start by the rules on disk, and changes are refused until it is back")
    return fail(
        found.trouble,
        "mend the store or --redis-url (docs/redis.md): without rules on its disk this host is not ready until then",
    )


def judge_version(found: StoreVisit) -> HostFinding:
    for name, oldest in OLDEST.items():
        if name == "redis" and "valkey_version" in found.facts:
            continue  # what Valkey says there is which Redis it can stand in for
        version = found.facts.get(f"{name}_version", "")
        if version:
            least = ".".join(map(str, oldest))
            numbers = re.match(r"(\d+)(?:\.(\d+))?", version)
            if numbers is None:
                return unknown(f"{name} says version {version!r}", f"{name} {least} or newer is needed")
            if (int(numbers[1]), int(numbers[2] or 0)) < oldest:
                return fail(f"{name} {version}", f"{name} {least} or newer is needed")
            return ok(f"{name} {version}")
    return _withheld(found)


def judge_feature_store(found: StoreVisit) -> HostFinding:
    """A feature store needs a hash read, which every version does; views are served by their defaults without it."""
    if found.trouble:
        return fail(
            found.trouble, "mend the store or --feature-store: look-ups have only defaults, or fail, until then"
        )
    if found.facts.get("cluster_enabled") == "1":
        return fail(
            "is a node of a cluster", "name a server that has all rows (docs/features.md): a node has only its own"
        )
    version = judge_version(found)
    if version.verdict is HostState.FAIL:
        return warn(f"answers, {version.seen}", f"older than what is tested: {version.remedy}")
    if version.verdict is HostState.UNKNOWN:
        return ok("answers; it does not say its version to this user")
    return ok(f"answers, {version.seen}")


def judge_persistence(found: StoreVisit) -> HostFinding:
    facts = found.facts
    if "aof_enabled" not in facts:
        return _withheld(found)
    if facts["aof_enabled"] == "1":
        if facts.get("aof_last_write_status", "ok") != "ok":
            return fail("the append-only file cannot be written", "look at the store's log and disk")
        return ok("append-only file")
    remedy = "appendonly yes, appendfsync always (docs/redis.md, Durability): rules that only memory holds go with it"
    if int(facts.get("rdb_last_save_time", "0")) and facts.get("rdb_last_bgsave_status") == "ok":
        return warn("snapshots, and no append-only file", remedy)
    return warn("nothing is written to a disk", remedy)


def judge_policy(found: StoreVisit) -> HostFinding:
    policy = found.facts.get("maxmemory_policy", "")
    if not policy:
        return _withheld(found)
    if policy == "noeviction":
        return ok(policy)
    return fail(policy, "maxmemory-policy noeviction: a rule must not be evicted")


def judge_skew(found: StoreVisit) -> HostFinding:
    if found.ahead_s is None:
        return _withheld(found)
    seen = f"the store's clock is {abs(found.ahead_s):.3f} s {'ahead' if found.ahead_s > 0 else 'behind'}"
    remedy = "run chrony or systemd-timesyncd here and on the store's host: rules and tokens end by the clock"
    if abs(found.ahead_s) > _SKEW_FAIL_S:
        return fail(seen, remedy)
    return warn(seen, remedy) if abs(found.ahead_s) > _SKEW_WARN_S else ok(seen)


def _withheld(found: StoreVisit) -> HostFinding:
    if found.trouble:
        return unknown("the store does not answer", "see the check `store`")
    why = found.withheld or "it does not say"
    return unknown(why, "ask its administrator, or run this with a user that may call INFO and TIME")
