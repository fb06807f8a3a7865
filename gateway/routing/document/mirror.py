"""Mirrors of a route: arms that get copies of requests, whose answers nobody waits for."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.routing.document.field import Field, Section
from gateway.routing.document.key import SALT_LIMIT
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text
from gateway.routing.document.strategy import arm_of

MIRROR_FIELDS = (
    "arm",
    "percent",
    "salt",
    "maxInflight",
    "queue",
    "deadline",
    "onFull",
    "shedAboveCpu",
    "compare",
    "log",
)
TOLERANCE_FIELDS = ("abs", "rel")
LOGGED = ("none", "diffs", "all")
MIRROR_LIMIT = 8
_OUTPUT_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Holds how far an output may be off: not at all (`exact`), or by absolute + relative * |primary|."""

    output: str
    exact: bool = True
    absolute: float = 0.0
    relative: float = 0.0

    def to_value(self) -> object:
        if self.exact:
            return "exact"
        return {name: size for name, size in (("abs", self.absolute), ("rel", self.relative)) if size}


@dataclass(frozen=True, slots=True)
class Mirror:
    """One mirror. Units: `share` in buckets. `salt` is "" where the document gives none; a salt of the mirror's own is
    used then. `shed_above_cpu` 1.0: never. What does not fit in flight or in the queue is dropped."""

    arm: str
    share: int
    salt: str = ""
    max_inflight: int = 16
    queue: int = 256
    deadline_ms: int = 500
    shed_above_cpu: float = 1.0
    compare: tuple[Tolerance, ...] = ()
    logged: str = "none"

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"arm": self.arm, "percent": percent_text(self.share)}
        usual = Mirror(self.arm, self.share)
        given = {
            "salt": (self.salt, usual.salt),
            "maxInflight": (self.max_inflight, usual.max_inflight),
            "queue": (self.queue, usual.queue),
            "deadline": (duration_text(self.deadline_ms), duration_text(usual.deadline_ms)),
            "shedAboveCpu": (self.shed_above_cpu, usual.shed_above_cpu),
            "log": (self.logged, usual.logged),
        }
        value |= {name: own for name, (own, default) in given.items() if own != default}
        if self.compare:
            value["compare"] = {tolerance.output: tolerance.to_value() for tolerance in self.compare}
        return value


def parse_mirrors(field: Field, arms: Mapping[str, object]) -> tuple[Mirror, ...]:
    """The mirrors, no two of one arm."""
    items = field.items(MIRROR_LIMIT, what="mirrors")
    mirrors = tuple(_mirror(item, arms) for item in items)
    for index, mirror in enumerate(mirrors):
        if any(mirror.arm == other.arm for other in mirrors[:index]):
            raise items[index].fail(f"arm {mirror.arm!r} has two mirrors")
    return mirrors


def _mirror(field: Field, arms: Mapping[str, object]) -> Mirror:
    section = field.section(*MIRROR_FIELDS)
    arm = arm_of(section.required("arm"), arms)
    share = percent(section.required("percent"))
    usual = Mirror(arm, share)
    if (full := section.field("onFull")) is not None:
        full.choice("drop")
    salt, deadline, log = section.field("salt"), section.field("deadline"), section.field("log")
    inflight, queue, cpu = section.field("maxInflight"), section.field("queue"), section.field("shedAboveCpu")
    return Mirror(
        arm,
        share,
        salt.text(limit=SALT_LIMIT) if salt is not None else usual.salt,
        inflight.whole(1, 10_000) if inflight is not None else usual.max_inflight,
        queue.whole(0, 100_000) if queue is not None else usual.queue,
        duration_ms(deadline, least_ms=1) if deadline is not None else usual.deadline_ms,
        cpu.number(0, 1) if cpu is not None else usual.shed_above_cpu,
        _compare(section),
        log.choice(*LOGGED) if log is not None else usual.logged,
    )


def _compare(section: Section) -> tuple[Tolerance, ...]:
    field = section.field("compare")
    if field is None:
        return ()
    return tuple(_tolerance(name, value) for name, value in field.entries(_OUTPUT_LIMIT, what="outputs"))


def _tolerance(name: str, field: Field) -> Tolerance:
    output = Field(name, field.path).text(limit=256)
    if isinstance(field.value, str):
        field.choice("exact")
        return Tolerance(output)
    section = field.section(*TOLERANCE_FIELDS)
    absolute, relative = section.field("abs"), section.field("rel")
    sizes = [size.number(0, 1e300) if size is not None else 0.0 for size in (absolute, relative)]
    if not any(sizes):
        raise field.fail('give abs, rel or both greater than 0, or "exact"')
    return Tolerance(output, False, sizes[0], sizes[1])
