"""The decision: which arm and version serve a request. No I/O, no clock, no randomness of its own.

Order of the stages: kill switch > client pin > rules in their order > interval table > mirrors.
"""

from bisect import bisect_right

from gateway.errors import InvalidArgument, PermissionDenied, UnknownVersion
from gateway.routing.decision.compiled import CompiledRoute
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.attributes import Attributes
from gateway.routing.document.key import bucket_of, bucket_of_draw, bucket_of_draw_salted


def decide(snapshot: Snapshot, model: str, attributes: Attributes, draw: float, now_s: float) -> Decision:
    """The version that serves this request, and why.

    Same snapshot, attributes and time give the same answer in every worker, process and release, as long as the request
    carries a key.

    Units:  `draw` is uniform in [0, 1), used only where the request carries no key; `now_s` since the epoch, compared
            with the `until` of rules.
    Raises: PermissionDenied (the route does not let this client pin); UnknownVersion (the pin names nothing of the
            route); InvalidArgument (the route wants a key and the request has none).
    Source: docs/routes.md
    """
    compiled = snapshot.routes.get(model)
    requested = attributes.requested_version
    if compiled is None:
        return Decision("", requested, snapshot.revision, "PIN") if requested else snapshot.unrouted
    if compiled.kill is not None:
        return compiled.kill
    if not requested and compiled.pin_metadata:
        requested = attributes.metadata(compiled.pin_metadata) or ""
    if requested:
        return pinned(compiled, requested, attributes)
    if compiled.rules is not None:
        decision = compiled.rules.select(attributes, now_s)
        if decision is not None:
            return _mirrored(compiled, decision, attributes, draw) if compiled.mirrors else decision
    if not compiled.splits:
        return _mirrored(compiled, compiled.default, attributes, draw) if compiled.mirrors else compiled.default
    return _split(compiled, attributes, draw)


def pinned(compiled: CompiledRoute, requested: str, attributes: Attributes) -> Decision:
    """The decision for a version that the client asks for.

    Raises: PermissionDenied before UnknownVersion, so that nobody learns version names who may not choose one.
    """
    model = compiled.route.model
    if compiled.pin_denied:
        raise PermissionDenied(f"model {model!r}: its route lets no client choose a version")
    if compiled.pin_allowed is not None and not compiled.pin_allowed(attributes):
        raise PermissionDenied(f"model {model!r}: its route does not let this client choose a version")
    decision = compiled.pins.get(requested)
    if decision is None:
        raise UnknownVersion(model, requested)
    return decision


def key_of(compiled: CompiledRoute, attributes: Attributes) -> str | None:
    """The request's key: the first source that is there and not empty."""
    for read in compiled.key_readers:
        key = read(attributes)
        if key:
            return key
    return None


def missing_key(compiled: CompiledRoute) -> InvalidArgument:
    """The refusal of a request without a key, naming where one was looked for."""
    key = compiled.route.document.key
    sources = ", ".join(str(source) for source in key.sources) if key is not None else "nowhere"
    return InvalidArgument(f"model {compiled.route.model!r}: the request carries no routing key (looked in {sources})")


def _split(compiled: CompiledRoute, attributes: Attributes, draw: float) -> Decision:
    key = key_of(compiled, attributes)
    reason = "SPLIT"
    if key is not None:
        bucket = bucket_of(key, compiled.seed)
    elif not compiled.key_readers:
        bucket = bucket_of_draw(draw)
    else:
        wanted = compiled.route.document.key
        on_missing = wanted.on_missing if wanted is not None else "random"
        if on_missing == "reject":
            raise missing_key(compiled)
        if on_missing == "control":
            return _mirrored(compiled, compiled.default, attributes, draw) if compiled.mirrors else compiled.default
        bucket = bucket_of_draw(draw)
        reason = "DEFAULT"
    arm, version, chain, causes = compiled.outcomes[bisect_right(compiled.starts, bucket)]
    mirrors = _mirrors(compiled, version, key, draw) if compiled.mirrors else ()
    return Decision(arm, version, compiled.route.revision, reason, bucket, chain, causes, mirrors)


def _mirrored(compiled: CompiledRoute, decision: Decision, attributes: Attributes, draw: float) -> Decision:
    """The decision with the mirrors that this request falls into."""
    mirrors = _mirrors(compiled, decision.version, key_of(compiled, attributes), draw)
    if not mirrors:
        return decision
    chain, causes = decision.fallbacks, decision.fallback_on
    return Decision(
        decision.arm, decision.version, decision.revision, decision.reason, decision.bucket, chain, causes, mirrors
    )


def _mirrors(compiled: CompiledRoute, version: str, key: str | None, draw: float) -> tuple[tuple[str, str], ...]:
    """The mirrors of a request, but never the version that serves it."""
    hit: list[tuple[str, str]] = []
    for share, seed, target in compiled.mirrors:
        bucket = bucket_of(key, seed) if key is not None else bucket_of_draw_salted(draw, seed)
        if bucket < share and target[1] != version:
            hit.append(target)
    return tuple(hit)
