"""The keys under which workers tell their counts and states; who tells and who reads use the same names."""

from enum import StrEnum


class Sum(StrEnum):
    """The parts of a worker's counts that add up over workers and their lives."""

    SERIES = "series"
    REFUSED = "refused"
    ROUTE_APPLY = "route_apply"
    LOG = "log"
    LABELS = "labels"
    FALLBACKS = "fallbacks"
    SHADOWS = "shadows"
    ACCESS = "access"
    QUOTAS = "quotas"
    SHED = "shed"
    CONNECTIONS = "connections"
    TRACES = "traces"


class Gauge(StrEnum):
    """Holds what a worker says of itself now, for metrics and events."""

    REVISION = "revision"
    STALE_SECONDS = "stale_seconds"
    AGE_SECONDS = "age_seconds"
    FEED_STATE = "feed_state"
    RULES_ERROR = "rules_error"
    REFUSED = "refused"
    VERSIONS = "versions"
    QUARANTINE = "quarantine"
    REPOSITORY_UNREADABLE = "repository_unreadable"
    CONTENT_STORE_BYTES = "content_store_bytes"
    RESPONSE_CACHE_BYTES = "response_cache_bytes"
    IN_FLIGHT = "in_flight"
    IN_FLIGHT_BYTES = "in_flight_bytes"
    UNREAD_BYTES = "unread_bytes"
    QUEUES = "queues"
    COLLECTIONS = "collections"
    TASKS = "tasks"
    READY = "ready"
    CONNECTIONS = "connections"
    TLS = "tls"
    ACCESS = "access"
    QUOTAS = "quotas"
    LOG_BUFFER_BYTES = "log_buffer_bytes"
    LOG_SCALE = "log_scale"
    BREAKERS = "breakers"
    EXEMPLARS = "exemplars"
    SHADOW_DIFFERENCES = "shadow_differences"
