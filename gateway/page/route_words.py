"""A route in words: its shares, and everything else that decides."""

from collections.abc import Iterable
from time import time

from gateway.errors import InvalidArgument
from gateway.page.message_values import Value
from gateway.pb import control_pb2
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.notation import parse_json
from gateway.routing.document.route_status import is_open
from gateway.routing.document.strategy import HOLDOUT, BlueGreen, Canary, bandit_of

_UNREADABLE = "not readable by this command"  # a newer gateway wrote it: the rest of the page is shown all the same


def in_force_text(message: control_pb2.Route | control_pb2.HistoryEntry) -> str:
    """Returns the document in force: the one that was applied, as its rollout has moved it."""
    return message.in_force_json or message.document_json


def state_value(route: control_pb2.Route) -> dict[str, Value] | None:
    """Returns where the rollout of a route is, for machines; None where its document says all."""
    try:
        document = parse_json(in_force_text(route))
        if not is_open(parse_json(route.document_json)):
            return None
    except InvalidArgument:
        return None
    value: dict[str, Value] = {
        "revision": route.revision,
        "shares": shares_value(route),
        "versions": {arm.name: arm.version for arm in document.arms},
    }
    if isinstance(document.strategy, Canary):
        value |= {"step": document.strategy.step + 1, "steps": len(document.strategy.steps)}
    if isinstance(document.strategy, BlueGreen):
        value |= {"active": document.strategy.active, "halted": document.strategy.plan.halted}
    return value


def shares(route: control_pb2.Route) -> list[list[Value]]:
    """Returns arm, version and share of each arm that a route names, by name, and of a holdout.

    Raises: InvalidArgument (a newer gateway wrote the document).
    """
    document = parse_json(in_force_text(route))
    width: dict[str, int] = {}
    for interval in route.table:
        width[interval.arm] = width.get(interval.arm, 0) + interval.end - interval.start
    names = [arm.name for arm in document.arms] + ([HOLDOUT] if HOLDOUT in width else [])
    return [[name, document.version_of(name), _percent(width.get(name, 0))] for name in names]


def arms_text(route: control_pb2.Route) -> str:
    """Returns the shares in one line."""
    try:
        return ", ".join(f"{arm}={share} (version {version})" for arm, version, share in shares(route))
    except InvalidArgument as error:
        return f"{_UNREADABLE}: {error}"


def document_shares(text: str) -> str:
    """Returns the shares that a document of the history asks for, in one line; "" of a deletion."""
    if not text:
        return ""
    try:
        document = parse_json(text)
    except InvalidArgument as error:
        return f"{_UNREADABLE}: {error}"
    weights = document.weights()
    killed = document.kill_switch
    split = ", ".join(f"{arm}={_percent(size)}" for arm, size in weights.items() if size)
    return f"KILLED to {killed.arm}; {split}" if killed is not None else split


def also_decides(text: str) -> list[str]:
    """Returns a phrase for all that decides beside the shares: kill switch, holdout, step, rules, labels and so on."""
    try:
        document = parse_json(text)
    except InvalidArgument:
        return []
    phrases: list[str] = []
    if document.kill_switch is not None:
        phrases.append(f"KILLED to {document.kill_switch.arm} ({document.kill_switch.reason})")
    if HOLDOUT in document.weights():
        phrases.append(f"holdout answered by {document.strategy.control_arm}")
    if isinstance(document.strategy, Canary) and document.strategy.steps:
        by_hand = ""
        if document.strategy.weight is not None:
            by_hand = ", its share set by hand" if document.strategy.weight else ", no share"
        phrases.append(f"step {document.strategy.step + 1} of {len(document.strategy.steps)}{by_hand}")
    if (bandit := bandit_of(document.strategy)) is not None:
        phrases.append(f"bandit by {bandit.metric}, floor {_percent(bandit.floor)}")
    if isinstance(document.strategy, BlueGreen) and document.strategy.preview_match is not None:
        phrases.append(f"preview match -> {document.strategy.preview}")
    if document.rules:
        phrases.append("rules " + ", ".join(_rules(document)))
    if document.labels:
        follows = {one.label: f" (follows {one.alias})" for one in document.following}
        named = (f"{name}={version}{follows.get(name, '')}" for name, version in document.labels)
        phrases.append("labels " + ", ".join(named))
    if document.client_pin is not None and document.client_pin.deny:
        phrases.append("no client may pin")
    if document.fallback is not None:
        phrases.append(f"fallback to {', then '.join(document.fallback.order)}")
    if mirrors := document.effective_mirrors():
        phrases.append("mirrors " + ", ".join(f"{mirror.arm} {_percent(mirror.share)}" for mirror in mirrors))
    return phrases


def shares_value(route: control_pb2.Route) -> dict[str, Value]:
    """Returns percent of the keys by arm, for machines."""
    sizes: dict[str, int] = {}
    for part in route.table:
        sizes[part.arm] = sizes.get(part.arm, 0) + part.end - part.start
    return {arm: size / 10_000 for arm, size in sizes.items()}


def _rules(document: RouteDocument) -> Iterable[str]:
    now_s = time()
    for rule in document.rules:
        expired = " (expired)" if rule.until_s is not None and rule.until_s <= now_s else ""
        yield f"{rule.name} -> {rule.arm}{expired}"


def _percent(buckets: int) -> str:
    return f"{100 * buckets / BUCKETS:g} %"
