"""Readiness of a route: the versions that it names which could not serve, on the answering host."""

from collections.abc import Mapping, Sequence

from gateway.pb import control_pb2 as pb
from gateway.routing.document.document import RouteDocument
from gateway.serving.catalog import Catalog
from gateway.serving.ensemble_loads import shortfall
from gateway.serving.registry import VersionStatus
from gateway.serving.version import VersionState

UNKNOWN = "UNKNOWN"


def unready(
    catalog: Catalog, document: RouteDocument, elsewhere: Mapping[str, Sequence[VersionStatus]]
) -> list[pb.ModelVersionState]:
    """Returns the versions that the document names and that are not AVAILABLE in every worker of this host."""
    known = {status.version: status for status in catalog.states(document.model)}
    versions: list[pb.ModelVersionState] = []
    for name in sorted(document.versions()):
        status = known.get(name)
        if status is None:
            reason = "the model repository has no such version"
            versions.append(pb.ModelVersionState(model=document.model, version=name, state=UNKNOWN, reason=reason))
            continue
        message = version_message(catalog, status, elsewhere)
        if status.state is not VersionState.AVAILABLE or message.workers:
            versions.append(message)
    return versions


def version_message(
    catalog: Catalog, status: VersionStatus, elsewhere: Mapping[str, Sequence[VersionStatus]]
) -> pb.ModelVersionState:
    """Returns the version as this worker knows it, with the workers (by id) that know otherwise."""
    others = {
        worker: other
        for worker, versions in elsewhere.items()
        for other in versions
        if (other.model, other.version) == (status.model, status.version)
    }
    serves = status.state is VersionState.AVAILABLE
    origin, run_us, memory_bytes = catalog.details(status.model, status.version)
    return pb.ModelVersionState(
        source=catalog.origin(status.model),
        size_bytes=origin.size_bytes,
        run_us=run_us,
        trial_memory_bytes=memory_bytes,
        routed=status.version in catalog.routed(status.model),
        signature=origin.signature,
        publisher=origin.publisher,
        published_at=origin.published_s,
        lineage=origin.lineage,
        model=status.model,
        version=status.version,
        state=status.state.value,
        reason=status.reason or (shortfall(catalog, catalog.version(status.model, status.version)) if serves else ""),
        digest=status.digest,
        in_flight=status.in_flight + sum(other.in_flight for other in others.values()),
        max_batch_size=status.max_batch_size,
        merging=status.merging,
        weights=status.weights,
        newest_ready=serves and catalog.newest(status.model).name == status.version,
        workers={worker: other.state.value for worker, other in others.items() if other.state is not status.state},
    )
