"""The routing document of one model, as a checked and immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import InvalidArgument
from gateway.routing.document.canonical import canonical_json
from gateway.routing.document.field import MODEL_NAME, Field, Section, check_shape, shown
from gateway.routing.document.key import Key, parse_key
from gateway.routing.document.log_policy import LogPolicy, parse_log_policy
from gateway.routing.document.match import Match, parse_match
from gateway.routing.document.mirror import Mirror, parse_mirrors
from gateway.routing.document.quantity import instant_s, instant_text
from gateway.routing.document.safeguard import (
    ClientPin,
    Fallback,
    KillSwitch,
    parse_client_pin,
    parse_fallback,
    parse_kill_switch,
)
from gateway.routing.document.strategy import (
    HOLDOUT,
    PREVIEW,
    BlueGreen,
    Strategy,
    arm_of,
    parse_strategy,
)
from gateway.routing.document.version_label import LABEL_LIMIT, Following, labels_value, parse_version_labels

API_VERSION = "gateway/v1"
KIND = "Route"
DOCUMENT_FIELDS = ("apiVersion", "kind", "metadata", "spec")
STATUS_FIELD = "status"  # what the gateway tells of it: a document that was read there may be applied again
METADATA_FIELDS = ("model", "owner", "description", "labels")
ARM_FIELDS = ("version", "label")
RULE_FIELDS = ("name", "match", "arm", "until")
SPEC_FIELDS = ("arms", "labels", "strategy", "key", "rules", "clientPin", "fallback", "mirrors", "log", "killSwitch")
SIZE_LIMIT_BYTES = 1 << 20
ARM_LIMIT = 32
RULE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Arm:
    """A named version. `label` is "" where the document names the version itself."""

    name: str
    version: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests that fit `match` go to `arm`, until the second `until_s` since the epoch (None: for ever)."""

    name: str
    match: Match
    arm: str
    until_s: int | None = None

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"name": self.name, "match": self.match.to_value(), "arm": self.arm}
        if self.until_s is not None:
            value["until"] = instant_text(self.until_s)
        return value


@dataclass(frozen=True, slots=True)
class RouteDocument:
    """Holds what an operator asks for. Two documents that mean the same are equal and have the same canonical JSON."""

    model: str
    arms: tuple[Arm, ...]  # sorted by name
    strategy: Strategy
    key: Key | None = None
    rules: tuple[Rule, ...] = ()
    client_pin: ClientPin | None = None
    fallback: Fallback | None = None
    mirrors: tuple[Mirror, ...] = ()
    log: LogPolicy | None = None
    kill_switch: KillSwitch | None = None
    labels: tuple[tuple[str, str], ...] = ()  # (label, version), sorted by label
    following: tuple[Following, ...] = ()  # the labels that follow an alias of the model's source, sorted
    owner: str = ""
    description: str = ""
    tags: tuple[tuple[str, str], ...] = ()  # metadata.labels, sorted

    def to_value(self) -> dict[str, object]:
        """The document as plain data, without what it leaves at its default."""
        metadata: dict[str, object] = {"model": self.model}
        metadata |= {name: text for name in ("owner", "description") if (text := getattr(self, name))}
        if self.tags:
            metadata["labels"] = dict(self.tags)
        spec: dict[str, object] = {
            "arms": {a.name: {"label": a.label} if a.label else {"version": a.version} for a in self.arms},
            "strategy": {self.strategy.name: self.strategy.to_value()},
        }
        if self.labels:
            spec["labels"] = labels_value(self.labels, self.following)
        if self.rules:
            spec["rules"] = [rule.to_value() for rule in self.rules]
        if self.mirrors:
            spec["mirrors"] = [mirror.to_value() for mirror in self.mirrors]
        parts = {
            "key": self.key,
            "clientPin": self.client_pin,
            "fallback": self.fallback,
            "log": self.log,
            "killSwitch": self.kill_switch,
        }
        spec |= {name: part.to_value() for name, part in parts.items() if part is not None}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}

    def to_json(self) -> str:
        """The canonical text: sorted names, no spaces; `parse` of it is this document again."""
        return canonical_json(self.to_value())

    def versions(self) -> frozenset[str]:
        """Every version that a decision by this document can name."""
        return frozenset(arm.version for arm in self.arms) | frozenset(version for _, version in self.labels)

    def version_of(self, arm: str) -> str:
        """The version of an arm of the table. Raises: InvalidArgument where the document has no such arm."""
        name = self.strategy.control_arm if arm == HOLDOUT else arm
        for candidate in self.arms:
            if candidate.name == name:
                return candidate.version
        raise InvalidArgument(f"spec.arms: there is no arm {shown(arm)}")

    def weights(self) -> dict[str, int]:
        """Buckets per arm that the table must have; the sum is 1 000 000."""
        return self.strategy.table_weights()

    def effective_mirrors(self) -> tuple[Mirror, ...]:
        """The mirrors, and the one by which a blue-green rollout tries its preview."""
        strategy = self.strategy
        if isinstance(strategy, BlueGreen) and strategy.plan.shadow:
            return (*self.mirrors, Mirror(strategy.preview, strategy.plan.shadow))
        return self.mirrors


def parse(document: object) -> RouteDocument:
    """The document in plain data (mappings, lists, text, numbers, flags).

    Raises: InvalidArgument naming the path, the value and what is allowed. Nothing of a wrong document is kept.
    """
    check_shape(document)
    section = Section(Field(document, "document").mapping(*DOCUMENT_FIELDS, STATUS_FIELD), "")
    _constant(section.required("apiVersion"), API_VERSION)
    _constant(section.required("kind"), KIND)
    metadata = section.required("metadata").section(*METADATA_FIELDS)
    spec = section.required("spec").section(*SPEC_FIELDS)
    named = parse_version_labels(spec)
    labels = dict(named.versions)
    arms = {arm.name: arm for arm in _arms(spec.required("arms"), labels)}
    _check_labels(spec, labels, arms)
    strategy = parse_strategy(spec.required("strategy"), arms)
    key, rules, pin = spec.field("key"), spec.field("rules"), spec.field("clientPin")
    fallback, mirrors, kill = spec.field("fallback"), spec.field("mirrors"), spec.field("killSwitch")
    log = spec.field("log")
    parsed = RouteDocument(
        model=metadata.required("model").name(MODEL_NAME),
        arms=tuple(arms.values()),
        strategy=strategy,
        key=parse_key(key) if key is not None else None,
        rules=_rules(rules, arms, strategy) if rules is not None else (),
        client_pin=parse_client_pin(pin) if pin is not None else None,
        fallback=parse_fallback(fallback, arms) if fallback is not None else None,
        mirrors=parse_mirrors(mirrors, arms) if mirrors is not None else (),
        log=parse_log_policy(log, arms) if log is not None else None,
        kill_switch=parse_kill_switch(kill, arms) if kill is not None else None,
        labels=named.versions,
        following=named.following,
        owner=_note(metadata, "owner", 128),
        description=_note(metadata, "description", 1024),
        tags=_tags(metadata),
    )
    if isinstance(strategy, BlueGreen) and strategy.plan.shadow and _mirrors_to(parsed, strategy.preview):
        raise InvalidArgument(
            f"spec.strategy.blueGreen.prePromotion.shadow: arm {strategy.preview!r} has a mirror already; leave one out"
        )
    if (size := len(parsed.to_json().encode())) > SIZE_LIMIT_BYTES:
        raise InvalidArgument(f"document: {size} bytes, at most {SIZE_LIMIT_BYTES} are allowed")
    return parsed


def _mirrors_to(document: RouteDocument, arm: str) -> bool:
    return any(mirror.arm == arm for mirror in document.mirrors)


def _constant(field: Field, value: str) -> None:
    if field.value != value:
        raise field.refuse(f'"{value}"')


def _note(metadata: Section, name: str, limit: int) -> str:
    field = metadata.field(name)
    return field.text(limit=limit, empty=True) if field is not None else ""


def _tags(metadata: Section) -> tuple[tuple[str, str], ...]:
    field = metadata.field("labels")
    if field is None:
        return ()
    entries = field.entries(LABEL_LIMIT, what="labels")
    return tuple((Field(name, value.path).name(), value.text(limit=256, empty=True)) for name, value in entries)


def _arms(field: Field, labels: Mapping[str, str]) -> list[Arm]:
    arms: list[Arm] = []
    for name, value in field.entries(ARM_LIMIT, what="arms"):
        arm = _arm(name, value, labels)
        for other in arms:
            if other.version == arm.version:
                raise value.fail(f"version {arm.version!r} is that of arm {other.name!r} already")
        arms.append(arm)
    if not arms:
        raise field.fail("no arm; give at least one")
    return arms


def _arm(name: str, field: Field, labels: Mapping[str, str]) -> Arm:
    if Field(name, field.path).name() == HOLDOUT:
        raise field.fail(f'the name "{HOLDOUT}" is kept for the share that a test holds out')
    section = field.section(*ARM_FIELDS)
    version, label = section.field("version"), section.field("label")
    if version is not None and label is None:
        return Arm(name, version.version())
    if label is not None and version is None:
        target = label.choice(*labels) if labels else None
        if target is None:
            raise label.fail("there are no spec.labels to name one of")
        return Arm(name, labels[target], target)
    raise field.fail("exactly one of version, label is needed")


def _check_labels(spec: Section, labels: Mapping[str, str], arms: Mapping[str, Arm]) -> None:
    """A label that reads like a version that the route names would make a pin ambiguous."""
    versions = {arm.version for arm in arms.values()} | set(labels.values())
    for label in labels:
        if label in versions:
            raise InvalidArgument(f"{spec.at('labels')}.{label}: a version that this route names has the same name")


def _rules(field: Field, arms: Mapping[str, Arm], strategy: Strategy) -> tuple[Rule, ...]:
    taken = {PREVIEW} if isinstance(strategy, BlueGreen) and strategy.preview_match is not None else set()
    rules: list[Rule] = []
    for item in field.items(RULE_LIMIT, what="rules"):
        section = item.section(*RULE_FIELDS)
        name = section.required("name")
        if name.name() in taken:
            raise name.fail(f"there is another rule with the name {name.name()!r}")
        taken.add(name.name())
        until = section.field("until")
        rules.append(
            Rule(
                name.name(),
                parse_match(section.required("match")),
                arm_of(section.required("arm"), arms),
                instant_s(until) if until is not None else None,
            )
        )
    return tuple(rules)
