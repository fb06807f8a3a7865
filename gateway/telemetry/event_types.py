"""Every type of event. Nothing else names one; docs/events.md says what each holds, and a test compares."""

from enum import StrEnum


class EventType(StrEnum):
    """The `type` of an event."""

    ROUTE_APPLIED = "route.applied"
    ROUTE_ROLLED_BACK = "route.rolledback"
    ROUTE_DELETED = "route.deleted"
    RULES_HEALED = "rules.healed"
    RULES_STALE = "rules.stale"
    RULES_AHEAD = "rules.ahead"
    RULES_LIVE = "rules.live"
    RULES_POISON = "rules.poison"
    VERSION_READY = "version.ready"
    VERSION_FAILED = "version.failed"
    VERSION_REPLACED = "version.replaced"
    VERSION_UNLOADED = "version.unloaded"
    VERSION_QUARANTINED = "version.quarantined"
    VERSION_RELEASED = "version.released"
    INPUT_REFUSED = "input.refused"
    BREAKER_OPEN = "breaker.open"
    BREAKER_CLOSED = "breaker.closed"
    TLS_RENEWED = "tls.renewed"
    TLS_REFUSED = "tls.refused"
    ACCESS_DENIED = "access.denied"
    ACCESS_REFUSED = "access.refused"
    DRIFT_STATE = "drift.state"
    SHADOW_STATE = "shadow.state"
    WORKER_STATE = "worker.state"
    WORKER_RECYCLED = "worker.recycled"
