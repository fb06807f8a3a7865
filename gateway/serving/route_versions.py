"""A route's demands on the versions that it names: they must be able to serve, and some must stay loaded."""

from gateway.errors import FailedPrecondition
from gateway.routing.document.document import RouteDocument
from gateway.serving.catalog import Catalog
from gateway.serving.version import VersionState


def check_versions(catalog: Catalog, document: RouteDocument) -> None:
    """Returns if every version that the route names could serve now, and all of them take and give the same tensors.

    Raises: FailedPrecondition naming the version that could not, or the two that differ.
    """
    known = {status.version: status for status in catalog.states(document.model)}
    contracts = {}
    for name in sorted(document.versions()):
        status = known.get(name)
        if status is None:
            raise FailedPrecondition(
                f"model {document.model!r} has no version {name!r}; its versions are {sorted(known) or 'none'}"
            )
        if status.state is not VersionState.AVAILABLE:
            reason = f": {status.reason}" if status.reason else ""
            raise FailedPrecondition(f"model {document.model!r} version {name!r} is {status.state.value}{reason}")
        version = catalog.version(document.model, name)
        contracts[name] = (
            [(spec.name, spec.datatype, spec.shape, spec.any_shape) for spec in version.inputs],
            [(spec.name, spec.datatype) for spec in version.outputs],
        )
    first = next(iter(contracts), "")
    for name, contract in contracts.items():
        if contract != contracts[first]:
            raise FailedPrecondition(
                f"versions {first!r} and {name!r} of model {document.model!r} differ in inputs or outputs: "
                "one route cannot offer both to the same clients"
            )


def required_versions(catalog: Catalog, document: RouteDocument, in_force: frozenset[str]) -> frozenset[str]:
    """Returns the versions that the route needs, and of its other versions and the present ones those that are loaded.

    So a rollback loads nothing, and a kill switch does not wait for the version that it leaves.
    """
    kill = document.kill_switch
    required = document.versions() if kill is None else frozenset({document.version_of(kill.arm)})
    states = {status.version: status.state for status in catalog.states(document.model)}
    welcome = document.versions() | in_force
    return required | {name for name in welcome if states.get(name) is VersionState.AVAILABLE}
