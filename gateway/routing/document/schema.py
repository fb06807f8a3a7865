"""The JSON Schema of a routing document, for editors and other people's tools.

It says what can be said without computing; `document.parse` alone decides (sums of weights, names of arms, unique
versions). Whatever `parse` takes, the schema takes too.
"""

from collections.abc import Sequence

from gateway.routing.document.analysis import (
    ALPHA,
    APPROVER_LIMIT,
    MOST_EVENTS,
    ON_FAIL,
    ON_INCONCLUSIVE,
    ON_NO_DATA,
    PASS_MARGIN,
)
from gateway.routing.document.bandit_plan import DISCOUNT, LEAST_EVENTS, POSTERIORS, SIDES
from gateway.routing.document.blue_green_plan import ON_FAIL as ON_WATCH_FAIL
from gateway.routing.document.blue_green_plan import PROMOTIONS, READY
from gateway.routing.document.document import (
    API_VERSION,
    ARM_LIMIT,
    KIND,
    RULE_LIMIT,
    STATUS_FIELD,
)
from gateway.routing.document.experiment_plan import (
    BETTER,
    EXPERIMENT_METRICS,
    GUARDING,
    MDE,
    METRIC_LIMIT,
    ON_MISMATCH,
)
from gateway.routing.document.field import MODEL_NAME, SHORT_NAME
from gateway.routing.document.guardrail import ACTIONS, GUARDRAIL_LIMIT, GUARDRAILS, METRICS
from gateway.routing.document.key import ON_MISSING, SALT_LIMIT, SOURCE_LIMIT
from gateway.routing.document.log_policy import FIRST_LIMIT, SCORE_LIMIT
from gateway.routing.document.match import CONDITION_LIMIT
from gateway.routing.document.mirror import LOGGED, MIRROR_LIMIT
from gateway.routing.document.offline_check import MOST_OFFLINE_ROWS
from gateway.routing.document.operator import Schema, matcher_schema
from gateway.routing.document.safeguard import CAUSES
from gateway.routing.document.source import KEY_PATTERN, MATCH_FIELDS, SOURCES
from gateway.routing.document.strategy import (
    STEP_LIMIT,
    STRATEGIES,
    Ab,
    BlueGreen,
    Canary,
    Pinned,
)
from gateway.routing.document.version_label import ALIAS_LIMIT, APPROVALS_LIMIT, LABEL_LIMIT


def schema() -> Schema:
    """A JSON Schema (draft 2020-12) of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Route",
        **_object(
            {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": KIND},
                "metadata": _metadata(),
                "spec": _spec(),
                STATUS_FIELD: True,
            },
            required=("apiVersion", "kind", "metadata", "spec"),
        ),
        "$defs": {
            "name": _pattern(SHORT_NAME.pattern),
            "version": {"anyOf": [_pattern(SHORT_NAME.pattern), {"type": "integer", "minimum": 0}]},
            "percent": {
                "anyOf": [
                    {"type": "number", "minimum": 0, "maximum": 100},
                    _pattern(r"[0-9]{1,3}(\.[0-9]{1,16})?%"),
                ]
            },
            "duration": _pattern("[0-9]{1,9}(ms|s|m|h|d)"),
            "match": _match(),
            "matcher": matcher_schema(),
        },
    }


def _object(properties: Schema, required: Sequence[str] = (), **more: object) -> Schema:
    value: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return value | ({"required": list(required)} if required else {}) | more


def _map(of: Schema, limit: int, *, names: str = "", least: int = 0) -> Schema:
    value: Schema = {"type": "object", "additionalProperties": of, "maxProperties": limit}
    return value | ({"propertyNames": _pattern(names)} if names else {}) | ({"minProperties": least} if least else {})


def _list(of: Schema, limit: int, *, least: int = 0) -> Schema:
    return {"type": "array", "items": of, "maxItems": limit} | ({"minItems": least} if least else {})


def _pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _text(limit: int, *, least: int = 1) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": limit}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _of(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _metadata() -> Schema:
    labels = _map(_text(256, least=0), LABEL_LIMIT, names=SHORT_NAME.pattern)
    return _object(
        {
            "model": _pattern(MODEL_NAME.pattern),
            "owner": _text(128, least=0),
            "description": _text(1024, least=0),
            "labels": labels,
        },
        required=("model",),
    )


def _spec() -> Schema:
    arm = _object({"version": _of("version"), "label": _of("name")}, minProperties=1, maxProperties=1)
    following = _object(
        {"version": _of("version"), "alias": _text(ALIAS_LIMIT), "approvals": _whole(0, APPROVALS_LIMIT)},
        required=("version", "alias"),
    )
    rule = _object(
        {"name": _of("name"), "match": _of("match"), "arm": _of("name"), "until": _text(25)},
        required=("name", "match", "arm"),
    )
    sources = _list(_pattern(KEY_PATTERN), SOURCE_LIMIT, least=1)
    missing: Schema = {"enum": list(ON_MISSING)}
    pin = _object({"metadata": _text(128), "allow": _of("match"), "deny": {"type": "boolean"}})
    return _object(
        {
            "arms": _map(arm, ARM_LIMIT, names=SHORT_NAME.pattern, least=1),
            "labels": _map({"anyOf": [_of("version"), following]}, LABEL_LIMIT, names=SHORT_NAME.pattern),
            "strategy": _strategy(),
            "key": _object({"from": sources, "onMissing": missing, "salt": _text(SALT_LIMIT)}, required=("from",)),
            "rules": _list(rule, RULE_LIMIT),
            "clientPin": pin,
            "fallback": _fallback(),
            "mirrors": _list(_mirror(), MIRROR_LIMIT),
            "log": _log(),
            "killSwitch": _object({"arm": _of("name"), "reason": _text(512)}, required=("arm", "reason")),
        },
        required=("arms", "strategy"),
    )


def _strategy() -> Schema:
    guardrails = _guardrail_list()
    analysis = _analysis(guardrails)  # a canary's and a blue-green rollout's
    ab = _object(
        {
            "control": _of("name"),
            "weights": _map(_of("percent"), ARM_LIMIT, names=SHORT_NAME.pattern, least=1),
            "holdout": _of("percent"),
            "bandit": _bandit(guardrails),
            **_experiment(),
        },
        required=("control", "weights"),
    )
    gate: Schema = {
        "hold": _of("duration"),
        "minEvents": _whole(0, MOST_EVENTS),
        "approval": _list(_text(256), APPROVER_LIMIT, least=1),
    }
    offline = _object({"window": _of("duration"), "rows": _whole(1, MOST_OFFLINE_ROWS), "failAbove": _of("percent")})
    step = _object(
        {"weight": _of("percent"), "offline": offline, **gate},
        oneOf=[{"required": ["weight"]}, {"required": ["offline"]}],
    )
    canary = _object(
        {
            "stable": _of("name"),
            "canary": _of("name"),
            "weight": _of("percent"),
            "step": _whole(0, STEP_LIMIT - 1),
            "steps": _list(step, STEP_LIMIT, least=1),
            "analysis": analysis,
            "afterPromote": _object(
                {"watch": _of("duration"), "keepWarm": _of("duration"), "onFail": {"enum": list(ON_FAIL)}}
            ),
        },
        anyOf=[{"required": ["weight"]}, {"required": ["steps"]}],
    )
    blue_green = _object(
        {
            "active": _of("name"),
            "preview": _of("name"),
            "previewMatch": _of("match"),
            "requireReady": {"enum": list(READY)},
            "prePromotion": _object(
                {"shadow": _of("percent"), "for": _of("duration"), "minEvents": _whole(0, MOST_EVENTS)}
            ),
            "promote": {"enum": list(PROMOTIONS)},
            "keepWarm": _of("duration"),
            "postPromotion": _object(
                {"watch": _of("duration"), "onFail": {"enum": list(ON_WATCH_FAIL)}}, required=("watch",)
            ),
            "analysis": analysis,
            "halted": {"type": "boolean"},
        },
        required=("active",),
    )
    pinned = _object({"arm": _of("name")}, required=("arm",))
    kinds: Schema = {Ab.name: ab, Canary.name: canary, BlueGreen.name: blue_green, Pinned.name: pinned}
    return _object({name: kinds[name] for name in STRATEGIES}, minProperties=1, maxProperties=1)


def _experiment() -> Schema:
    metric = _object(
        {
            "name": {"enum": list(EXPERIMENT_METRICS)},
            "mde": {"type": "number", "minimum": MDE[0], "maximum": MDE[1]},
            "better": {"enum": list(BETTER)},
        },
        required=("name",),
    )
    return {
        "metrics": _list(metric, METRIC_LIMIT, least=1),
        "guardrails": _list({"enum": list(GUARDING)}, METRIC_LIMIT, least=1),
        "srm": _object({"onMismatch": {"enum": list(ON_MISMATCH)}}),
        "maxDuration": _of("duration"),
    }


def _bandit(guardrails: Schema) -> Schema:
    return _object(
        {
            "metric": {"enum": list(METRICS)},
            "better": {"enum": list(SIDES)},
            "posterior": {"enum": list(POSTERIORS)},
            "interval": _of("duration"),
            "minEvents": _whole(LEAST_EVENTS, MOST_EVENTS),
            "floor": _of("percent"),
            "discount": {"type": "number", "minimum": DISCOUNT[0], "maximum": DISCOUNT[1]},
            "alpha": {"type": "number", "minimum": ALPHA[0], "maximum": ALPHA[1]},
            "guardrails": guardrails,
        }
    )


def _guardrail_list() -> Schema:
    kinds = [
        _object(
            {
                "kind": {"const": kind.name},
                "action": {"enum": list(ACTIONS)},
                **{name: dict(option.schema) for name, option in kind.options.items()},
            },
            required=("kind", *(name for name, option in kind.options.items() if option.default is None)),
        )
        for kind in GUARDRAILS.values()
    ]
    return _list({"anyOf": kinds}, GUARDRAIL_LIMIT, least=1)


def _analysis(guardrails: Schema) -> Schema:
    return _object(
        {
            "tick": _of("duration"),
            "alpha": {"type": "number", "minimum": ALPHA[0], "maximum": ALPHA[1]},
            "passMargin": {"type": "number", "minimum": PASS_MARGIN[0], "maximum": PASS_MARGIN[1]},
            "onFail": {"enum": list(ON_FAIL)},
            "onInconclusive": {"enum": list(ON_INCONCLUSIVE)},
            "onNoData": {"enum": list(ON_NO_DATA)},
            "maxHold": _of("duration"),
            "maxHarmed": _whole(1, MOST_EVENTS),
            "maxLoad": _of("percent"),
            "guardrails": guardrails,
        }
    )


def _fallback() -> Schema:
    breaker = _object({"consecutive": _whole(1, 10_000), "window": _of("duration"), "open": _of("duration")})
    return _object(
        {
            "order": _list(_of("name"), ARM_LIMIT, least=1),
            "on": _list({"enum": list(CAUSES)}, len(CAUSES), least=1),
            "budget": _of("percent"),
            "breaker": breaker,
        },
        required=("order",),
    )


def _mirror() -> Schema:
    size: Schema = {"type": "number", "minimum": 0}
    tolerance = _object({"abs": size, "rel": size}, minProperties=1)
    return _object(
        {
            "arm": _of("name"),
            "percent": _of("percent"),
            "salt": _text(SALT_LIMIT),
            "maxInflight": _whole(1, 10_000),
            "queue": _whole(0, 100_000),
            "deadline": _of("duration"),
            "onFull": {"const": "drop"},
            "shedAboveCpu": {"type": "number", "minimum": 0, "maximum": 1},
            "compare": _map({"anyOf": [{"const": "exact"}, tolerance]}, 64),
            "log": {"enum": list(LOGGED)},
        },
        required=("arm", "percent"),
    )


def _log() -> Schema:
    keep = _object(
        {
            "errors": {"type": "boolean"},
            "first": _whole(0, FIRST_LIMIT),
            "scoreBelow": {"type": "number", "minimum": -SCORE_LIMIT, "maximum": SCORE_LIMIT},
            "disagreement": {"type": "boolean"},
        }
    )
    rates = _map(_of("percent"), ARM_LIMIT + 1, names=SHORT_NAME.pattern)
    return _object({"rate": _of("percent"), "arms": rates, "keep": keep})


def _match() -> Schema:
    matcher = _of("matcher")
    named = _map(matcher, CONDITION_LIMIT)
    return _object(
        {name: named if SOURCES[kind].named else matcher for name, kind in MATCH_FIELDS.items()}, minProperties=1
    )
