"""Scenario files: YAML or JSON in, a `Scenario` out; an unknown field, a wrong value and a missing one are named.

docs/load-tests.md has the fields. The same readers serve the routing documents, so the same errors are shown.
"""

from pathlib import Path
from typing import Any, Final

from gateway.errors import InvalidArgument
from gateway.routing.document.field import SHORT_NAME, Field
from gateway.routing.document.notation import read_yaml
from loadtests.job.arrivals import Arrivals, Spacing, ramp, spike, steady
from loadtests.job.budget import read_budgets
from loadtests.job.quantity import bytes_of, seconds_of, share_of_text
from loadtests.job.scenario_plan import (
    PROTOCOLS,
    CanaryPlan,
    FlipPlan,
    InputPlan,
    KeyPlan,
    PayloadPlan,
    Scenario,
    TrafficPlan,
)

SHIPPED: Final = Path(__file__).parents[1] / "scenarios"
API_VERSION: Final = "loadtests/v1"
_MOST_PER_SECOND: Final = 1e6
_SPACINGS: Final[tuple[Spacing, ...]] = ("poisson", "constant")


def shipped() -> dict[str, Path]:
    """Returns the scenarios that come with the load tests, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_scenario(name: str) -> Scenario:
    """Returns the scenario of that file, or the shipped one of that name. Raises: InvalidArgument, naming the field."""
    known = shipped()
    path = known.get(name, Path(name))
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"scenario {name!r}: {error.strerror or error}; shipped are {', '.join(known)}, others are files"
        ) from None
    try:
        return read_scenario(text, path)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None


def read_scenario(text: str | bytes, path: Path) -> Scenario:
    """Returns the scenario in this text; files that it names lie beside `path`. Raises: InvalidArgument."""
    values = read_yaml(text)
    if len(values) != 1:
        raise InvalidArgument(f"{len(values)} documents, a scenario is one")
    top = Field(values[0], "scenario").section(
        "apiVersion", "name", "description", "duration", "warmUp", "traffic", "changes", "budgets"
    )
    top.required("apiVersion").choice(API_VERSION)
    traffic = [_traffic(item, path) for item in top.required("traffic").items(50, what="traffic")]
    if not traffic:
        raise InvalidArgument("scenario.traffic: it is empty")
    names = [one.name for one in traffic]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidArgument(f"scenario.traffic: {twice[0]!r} is the name of two")
    budgets = read_budgets(field) if (field := top.field("budgets")) is not None else ()
    for item in top.required("traffic").items(50, what="traffic"):
        section = item.section(*_TRAFFIC)
        if (field := section.field("budgets")) is not None:
            budgets += read_budgets(field, section.required("name").name(SHORT_NAME))
    change, changed = _change(field) if (field := top.field("changes")) is not None else (None, "")
    return Scenario(
        name=top.required("name").name(SHORT_NAME),
        description=field.text() if (field := top.field("description")) is not None else "",
        seconds=_time(top.required("duration"), least=1.0),
        warm_up_s=_time(field) if (field := top.field("warmUp")) is not None else 0.0,
        traffic=tuple(traffic),
        change=change,
        changed_model=changed,
        budgets=budgets,
    )


_TRAFFIC: Final = (
    *("name", "model", "version", "protocol", "arrivals", "payload", "connections", "deadline", "key", "headers"),
    "budgets",
)


def _traffic(item: Field, path: Path) -> TrafficPlan:
    section = item.section(*_TRAFFIC)
    made: dict[str, Any] = {"name": section.required("name").name(SHORT_NAME)}
    made["arrivals"] = _arrivals(section.required("arrivals"))
    if (field := section.field("model")) is not None:
        made["model"] = field.text(limit=128)
    if (field := section.field("version")) is not None:
        made["version"] = field.version()
    if (field := section.field("protocol")) is not None:
        made["protocol"] = field.choice(*PROTOCOLS)
    if (field := section.field("payload")) is not None:
        made["payload"] = _payload(field, path)
    if (field := section.field("connections")) is not None:
        made["connections"] = field.whole(1, 10_000)
    if (field := section.field("deadline")) is not None:
        made["deadline_s"] = _time(field, least=0.001)
    if (field := section.field("key")) is not None:
        key = field.section("metadata", "count")
        made["key"] = KeyPlan(key.required("metadata").text(limit=128), key.required("count").whole(1, 10_000_000))
    if (field := section.field("headers")) is not None:
        made["headers"] = {name: value.text(empty=True) for name, value in field.entries(50, what="headers")}
    return TrafficPlan(**made)


def _arrivals(field: Field) -> Arrivals:
    section = field.section("constant", "poisson", "ramp", "spike")
    if len(section.values) != 1:
        raise InvalidArgument(f"{field.path}: name exactly one of constant, poisson, ramp, spike")
    [kind] = section.values
    inner = section.required(kind)
    if kind == "ramp":
        parts = inner.section("from", "to", "spacing")
        first, last = (_rate(parts.required(name), least=0.0) for name in ("from", "to"))
        if first == last == 0:
            raise InvalidArgument(f"{inner.path}: from and to are both 0")
        return ramp(first, last, _spacing(parts.field("spacing")))
    if kind == "spike":
        parts = inner.section("rate", "peak", "start", "end", "spacing")
        start, end = (_share(parts.field(name), usual) for name, usual in (("start", 0.4), ("end", 0.6)))
        if start >= end:
            raise InvalidArgument(f"{inner.path}: start is not before end")
        rate, peak = (_rate(parts.required(name)) for name in ("rate", "peak"))
        return spike(rate, peak, start, end, _spacing(parts.field("spacing")))
    parts = inner.section("rate")
    return steady(_rate(parts.required("rate")), "constant" if kind == "constant" else "poisson")


def _payload(field: Field, path: Path) -> PayloadPlan:
    section = field.section("generate", "file", "log")
    if len(section.values) != 1:
        raise InvalidArgument(f"{field.path}: name exactly one of generate, file, log")
    [source] = section.values
    inner = section.required(source)
    made: dict[str, Any] = {"source": source}
    if source == "generate":
        parts = inner.section("rows", "bytes", "distinct", "seed", "inputs")
        if (one := parts.field("bytes")) is not None:
            made["size_bytes"] = bytes_of(str(one.value), one.path)
        for name, least, most in (("distinct", 1, 10_000), ("seed", 0, 1 << 31)):
            if (one := parts.field(name)) is not None:
                made[name] = one.whole(least, most)
        if (one := parts.field("inputs")) is not None:
            made["inputs"] = {name: _input(value) for name, value in one.entries(1000, what="inputs")}
    else:
        parts = inner.section("path", "rows", "distinct")
        made["path"] = str((path.parent / parts.required("path").text()).absolute())
        if (one := parts.field("distinct")) is not None:
            made["distinct"] = one.whole(1, 100_000)
    if (one := parts.field("rows")) is not None:
        made["rows"] = one.whole(1, 1_000_000)
    return PayloadPlan(**made)


def _input(field: Field) -> InputPlan:
    section = field.section("shape", "low", "high", "texts")
    shape = section.field("shape")
    texts = section.field("texts")
    low, high = (one.number(-1e300, 1e300) if (one := section.field(name)) else None for name in ("low", "high"))
    if low is not None and high is not None and low > high:
        raise InvalidArgument(f"{field.path}: low is above high")
    return InputPlan(
        tuple(size.whole(0, 1 << 31) for size in shape.items(32, what="sizes")) if shape is not None else None,
        low,
        high,
        tuple(one.text(empty=True) for one in texts.items(100_000, what="texts")) if texts is not None else (),
    )


def _change(field: Field) -> tuple[FlipPlan | CanaryPlan, str]:
    section = field.section("model", "flip", "canary")
    model = one.text(limit=128) if (one := section.field("model")) is not None else ""
    if ("flip" in section) == ("canary" in section):
        raise InvalidArgument(f"{field.path}: name exactly one of flip, canary")
    if (one := section.field("flip")) is not None:
        flip = one.section("every", "versions")
        return FlipPlan(_time(flip.required("every"), least=0.01), _versions(flip.field("versions"))), model
    inner = section.required("canary")
    parts = inner.section("weight", "start", "end", "versions", "judgedWithin", "failuresAfter")
    plan = CanaryPlan(
        weight=_share(parts.required("weight"), 0.0),
        start=_share(parts.field("start"), 0.2),
        end=_share(parts.field("end"), 0.6),
        versions=_versions(parts.field("versions")),
        judged_within_s=_time(one) if (one := parts.field("judgedWithin")) is not None else 0.0,
        failures_after=_share(parts.field("failuresAfter"), 0.0),
    )
    if plan.start >= plan.end:
        raise InvalidArgument(f"{inner.path}: start is not before end")
    return plan, model


def _versions(field: Field | None) -> tuple[str, ...]:
    if field is None:
        return ()
    versions = tuple(item.version() for item in field.items(2, what="versions"))
    if len(set(versions)) != 2:
        raise field.fail("name two different versions, the older one first")
    return versions


def _rate(field: Field, least: float = 0.001) -> float:
    return field.number(least, _MOST_PER_SECOND)


def _time(field: Field, least: float = 0.0) -> float:
    seconds = field.number(0, 1e6) if isinstance(field.value, int | float) else seconds_of(field.text(), field.path)
    if seconds < least:
        raise field.fail(f"at least {least:g} s")
    return seconds


def _share(field: Field | None, usual: float) -> float:
    return usual if field is None else share_of_text(field.text(), field.path)


def _spacing(field: Field | None) -> Spacing:
    return "poisson" if field is None else field.choice(*_SPACINGS)
