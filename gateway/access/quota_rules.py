"""The rules of the quota file, checked: how much of the gateway each caller may use, and in which class its calls are.

```yaml
quotas:
  - name: team-a                # in errors and metrics
    tenants: [team-a]           # or identities; who is named by neither list of a rule is not limited by it
    models: ["fraud*"]          # all models, if left out
    per: tenant                 # one bucket for each tenant (or identity); left out: one for all that the rule names
    requests-per-second: 200
    burst: 400                  # one second's requests, if left out
    concurrency: 32
    bytes-per-second: 50000000  # of request messages
priorities:                     # the first that fits counts; class default, if none does
  - class: critical
    tenants: [payments]
  - class: sheddable
    models: ["*-batch"]
    request-priority: true      # the request's own parameter `priority` counts: 1 critical, 2 default, 3 sheddable
```
All limits are for the whole host; each worker enforces its share.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from gateway.access.priority import Priority, named
from gateway.errors import InvalidArgument

MAX_QUOTAS: Final = 256
LEAST: Final = 1e-6  # of any limit: what is less would overflow the times that are computed from it
MAX_PATTERNS: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATTERN: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_SECTIONS: Final = ("quotas", "priorities")
_WHO: Final = ("identities", "tenants", "models")
_LIMITS: Final = {"requests-per-second": 1e9, "burst": 1e9, "concurrency": 1e9, "bytes-per-second": 1e15}
_QUOTA_FIELDS: Final = ("name", *_WHO, "per", *_LIMITS)
_PRIORITY_FIELDS: Final = ("class", *_WHO, "request-priority")
_PER: Final = ("identity", "tenant")


@dataclass(frozen=True, slots=True)
class Selector:
    """Says whose calls of which models a rule is for: patterns with `*`, `?` and `[...]`; an empty list: all."""

    identities: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def takes_caller(self, identity: str, tenant: str) -> bool:
        """Returns whether the rule names this caller: by either list, where both are given."""
        if not self.identities and not self.tenants:
            return True
        return _fits(identity, self.identities) or _fits(tenant, self.tenants)

    def takes_model(self, model: str) -> bool:
        return not self.models or _fits(model, self.models)


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota. Units: per second and for the whole host; 0: no such limit."""

    name: str
    selector: Selector = Selector()
    per: str = ""
    requests_per_second: float = 0.0
    burst: float = 0.0
    concurrency: int = 0
    bytes_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """The class of the calls that the selector takes."""

    priority: Priority
    selector: Selector = Selector()
    request_priority: bool = False


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """Everything that the file says."""

    quotas: tuple[Quota, ...] = ()
    priorities: tuple[PriorityRule, ...] = ()

    def names(self) -> frozenset[str]:
        """Returns the identities and tenants that the file names one by one: the only ones that are labels."""
        selectors = [*(quota.selector for quota in self.quotas), *(rule.selector for rule in self.priorities)]
        names = {name for selector in selectors for name in (*selector.identities, *selector.tenants)}
        return frozenset(name for name in names if not set(name) & set("*?["))


def parse_rules(value: object, source: str = "quota file") -> QuotaRules:
    """Returns the rules that plain data say.

    Raises: InvalidArgument naming the place, the value and what is allowed.
    """
    document = _fields({} if value is None else value, source, _SECTIONS)
    quotas = tuple(_quota(item, f"{source}, quotas[{i}]") for i, item in enumerate(_items(document, "quotas", source)))
    priorities = tuple(
        _priority(item, f"{source}, priorities[{i}]") for i, item in enumerate(_items(document, "priorities", source))
    )
    for position, quota in enumerate(quotas):
        if quota.name in [other.name for other in quotas[:position]]:
            raise InvalidArgument(f"{source}, quotas[{position}].name is {quota.name!r}, which another quota has too")
    return QuotaRules(quotas, priorities)


def _quota(value: object, where: str) -> Quota:
    fields = _fields(value, where, _QUOTA_FIELDS)
    name = fields.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refusal(f"{where}.name", name, "1 to 64 of the characters A-Z a-z 0-9 . _ -")
    per = fields.get("per", "")
    if per not in ("", *_PER):
        raise _refusal(f"{where}.per", per, ", ".join(_PER))
    limits = {
        field: _number(fields[field], f"{where}.{field}", most) for field, most in _LIMITS.items() if field in fields
    }
    rate = limits.get("requests-per-second", 0.0)
    if "burst" in limits and not rate:
        raise InvalidArgument(f"{where}.burst is given without requests-per-second, which it belongs to")
    if not limits:
        raise InvalidArgument(f"{where} has no limit, at least one of {', '.join(_LIMITS)} is needed")
    concurrency = limits.get("concurrency", 0.0)
    if concurrency != int(concurrency):
        raise _refusal(f"{where}.concurrency", concurrency, "a whole number")
    return Quota(
        name,
        _selector(fields, where),
        str(per),
        rate,
        limits.get("burst", rate),
        int(concurrency),
        limits.get("bytes-per-second", 0.0),
    )


def _priority(value: object, where: str) -> PriorityRule:
    fields = _fields(value, where, _PRIORITY_FIELDS)
    honours = fields.get("request-priority", False)
    if not isinstance(honours, bool):
        raise _refusal(f"{where}.request-priority", honours, "true, false")
    return PriorityRule(named(fields.get("class"), f"{where}.class"), _selector(fields, where), honours)


def _selector(fields: Mapping[str, object], where: str) -> Selector:
    lists = []
    for field in _WHO:
        patterns = fields.get(field, [])
        if (
            not isinstance(patterns, list)
            or (field in fields and not patterns)
            or len(patterns) > MAX_PATTERNS
            or not all(isinstance(pattern, str) and _PATTERN.fullmatch(pattern) for pattern in patterns)
        ):
            raise _refusal(f"{where}.{field}", patterns, f"a list of 1 to {MAX_PATTERNS} names or patterns")
        lists.append(tuple(patterns))
    return Selector(*lists)


def _number(value: object, where: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST <= value <= most:
        raise _refusal(where, value, f"a number from {LEAST:g} to {most:g}")
    return float(value)


def _items(document: Mapping[str, object], section: str, source: str) -> list[object]:
    items = document.get(section, [])
    if not isinstance(items, list) or len(items) > MAX_QUOTAS:
        raise _refusal(f"{source}, {section}", items, f"a list of at most {MAX_QUOTAS} rules")
    return items


def _fields(value: object, where: str, allowed: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _refusal(where, value, f"a mapping with {', '.join(allowed)}")
    fields = {str(name).replace("_", "-"): given for name, given in value.items()}
    for name in fields:
        if name not in allowed:
            raise InvalidArgument(f"{where}: there is no {name!r}, allowed: {', '.join(allowed)}")
    return fields


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refusal(where: str, value: object, allowed: str) -> InvalidArgument:
    text = repr(value)
    return InvalidArgument(f"{where} is {text if len(text) <= 80 else text[:77] + '...'}, allowed: {allowed}")
