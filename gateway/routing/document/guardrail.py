"""Guardrails of a canary: what is compared between its arms, and what may not be worse. One table for all kinds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

from gateway.errors import InvalidArgument
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text

Action = Literal["fail", "hold", "warn"]
ACTIONS: Final[tuple[Action, ...]] = ("fail", "hold", "warn")
GUARDRAIL_LIMIT: Final = 16
MOST_TOLERANCE: Final = 100.0
LEAST_TOLERANCE: Final = 1.0
QUANTILES: Final = (0.5, 0.9999)
INDEX: Final = (0.05, 10.0)
TIMEOUT_MS: Final = (100, 60_000)
# What workers count for a guardrail beside requests, times and runs, which they count for every judged route.
ANSWERS: Final = "answers"
PREDICTIONS: Final = "predictions"
FEEDBACK: Final = "feedback"
METRICS: Final = ("reward", "label")  # of feedback: the reward that it gives, or its label where that is a number
BETTER: Final = ("higher", "lower")

OptionValue = float | int | str


@dataclass(frozen=True, slots=True)
class GuardrailOption:
    """One field of a guardrail: how it is read, how it is written back, and what stands for it where it is left out."""

    read: Callable[[Field], OptionValue]
    write: Callable[[OptionValue], object]
    schema: Mapping[str, object]
    default: OptionValue | None = None  # None: the field must be given


@dataclass(frozen=True, slots=True)
class GuardrailKind:
    """A kind of guardrail.

    `tests` is how many e-values it has, `counts` what workers count for it alone ("": nothing), `compares` whether it
    needs requests that the canary itself answered, `mirrored` whether it looks at what the canary mirrors,
    `asked` whether somebody else answers at the end of each step.
    """

    name: str
    options: Mapping[str, GuardrailOption] = field(hash=False)
    action: Action = "fail"
    tests: int = 1
    counts: str = ""
    compares: bool = True
    mirrored: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One guardrail of a document; `options` has a value for every option of its kind."""

    kind: GuardrailKind
    action: Action
    options: Mapping[str, OptionValue] = field(hash=False)

    def number(self, name: str) -> float:
        """Returns the value of a numeric option. Raises: KeyError (the kind has no such option)."""
        return float(self.options[name])

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"kind": self.kind.name}
        if self.action != self.kind.action:
            value["action"] = self.action
        for name, option in self.kind.options.items():
            if self.options[name] != option.default:
                value[name] = option.write(self.options[name])
        return value


def _ratio(default: float) -> GuardrailOption:
    return GuardrailOption(
        lambda given: given.number(LEAST_TOLERANCE, MOST_TOLERANCE),
        lambda value: value,
        {"type": "number", "minimum": LEAST_TOLERANCE, "maximum": MOST_TOLERANCE},
        default,
    )


def _share(default: int | None) -> GuardrailOption:
    return GuardrailOption(_inner_percent, lambda value: percent_text(int(value)), {"$ref": "#/$defs/percent"}, default)


def _inner_percent(given: Field) -> int:
    buckets = percent(given)
    if not 0 < buckets < BUCKETS:
        raise given.refuse("a percentage above 0 and below 100")
    return buckets


def _http_url(given: Field) -> str:
    text = given.text()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise given.refuse("a URL") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise given.refuse("a URL that begins with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None:
        # The value stays unnamed: it would stand in logs and terminals.
        raise given.fail("a URL in a document must hold no user name or password; everybody who may read it would know")
    return text


_QUANTILE: Final = GuardrailOption(
    lambda given: given.number(*QUANTILES),
    lambda value: value,
    {"type": "number", "minimum": QUANTILES[0], "maximum": QUANTILES[1]},
    0.99,
)


def _bounded_ms(given: Field, least_ms: int, most_ms: int) -> int:
    length_ms = duration_ms(given, least_ms=least_ms)
    if length_ms > most_ms:
        raise given.refuse(f"a duration of at most {duration_text(most_ms)}")
    return length_ms


_INDEX: Final = GuardrailOption(
    lambda given: given.number(*INDEX),
    lambda value: value,
    {"type": "number", "minimum": INDEX[0], "maximum": INDEX[1]},
    0.2,
)
_URL: Final = GuardrailOption(_http_url, lambda value: value, {"type": "string", "minLength": 1, "maxLength": 1024})
_TIMEOUT: Final = GuardrailOption(
    lambda given: _bounded_ms(given, *TIMEOUT_MS),
    lambda value: duration_text(int(value)),
    {"$ref": "#/$defs/duration"},
    10_000,
)
# Any name is taken, as it was by releases that did not judge it; a caution says that feedback has no such metric.
_METRIC: Final = GuardrailOption(
    lambda given: given.text(limit=64),
    lambda value: value,
    {"type": "string", "minLength": 1, "maxLength": 64},
    METRICS[0],
)
_BETTER: Final = GuardrailOption(
    lambda given: given.choice(*BETTER), lambda value: value, {"enum": list(BETTER)}, BETTER[0]
)

# Each kind with its fields. `tolerance` is the ratio of rates, canary to stable, up to which nothing is wrong;
# `passBelow` a rate of events below which the canary passes whatever the ratio.
GUARDRAILS: Final[Mapping[str, GuardrailKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            GuardrailKind("errors", {"tolerance": _ratio(1.2), "passBelow": _share(5_000)}),
            GuardrailKind(
                "latency",
                {"quantile": _QUANTILE, "tolerance": _ratio(1.5), "passBelow": _share(50_000)},
                tests=2,
            ),
            GuardrailKind("drift", {"index": _INDEX}, action="warn", counts=PREDICTIONS),
            GuardrailKind("shadow", {"limit": _share(10_000)}, compares=False, mirrored=True),
            GuardrailKind("outputs", {"tolerance": _ratio(1.2), "passBelow": _share(5_000)}, counts=ANSWERS),
            GuardrailKind(
                "reward",
                {"metric": _METRIC, "better": _BETTER, "tolerance": _ratio(1.0), "passWithin": _share(100_000)},
                counts=FEEDBACK,
            ),
            GuardrailKind("webhook", {"url": _URL, "timeout": _TIMEOUT}, tests=0, compares=False, asked=True),
        )
    }
)
USUAL: Final = ("errors", "latency")  # where a document names none


def parse_guardrails(given: Field) -> tuple[Guardrail, ...]:
    """Returns the guardrails of a document. Raises: InvalidArgument naming the field."""
    items = given.items(GUARDRAIL_LIMIT, what="guardrails")
    if not items:
        raise given.fail("no guardrail; leave the field out for errors and latency, or give at least one")
    guardrails = tuple(_parse(item) for item in items)
    for index, one in enumerate(guardrails):
        if one in guardrails[:index]:
            raise items[index].fail(f"the same {one.kind.name} guardrail stands there twice")
    return guardrails


def usual_guardrails() -> tuple[Guardrail, ...]:
    """Returns what a canary with analysis is judged by where its document names nothing."""
    return tuple(_parse(Field({"kind": name}, name)) for name in USUAL)


def _parse(given: Field) -> Guardrail:
    if not isinstance(given.value, Mapping) or "kind" not in given.value:
        raise given.refuse(f"a guardrail with a kind ({', '.join(GUARDRAILS)})")
    name = Field(given.value["kind"], f"{given.path}.kind").choice(*GUARDRAILS)
    kind = GUARDRAILS[name]
    section = given.section("kind", "action", *kind.options)
    options: dict[str, OptionValue] = {}
    for option_name, option in kind.options.items():
        value = section.field(option_name)
        if value is not None:
            options[option_name] = option.read(value)
        elif option.default is not None:
            options[option_name] = option.default
        else:
            raise InvalidArgument(f"{section.at(option_name)}: required, but missing")
    action = section.field("action")
    return Guardrail(kind, action.choice(*ACTIONS) if action is not None else kind.action, MappingProxyType(options))
