"""A request that somebody describes, as routing sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.routing.document.document import RouteDocument
from gateway.routing.document.source import Source

Parameter = str | int | float | bool


@dataclass(frozen=True, slots=True)
class DescribedRequest:
    """Holds attributes of a request that need not exist; what is not given is absent."""

    metadata_values: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    requested_version: str = ""
    tenant: str = ""
    identity: str = ""
    method: str = ""

    def metadata(self, name: str) -> str | None:
        return self.metadata_values.get(name)

    def parameter(self, name: str) -> Parameter | None:
        return self.parameters.get(name)

    def input_value(self, name: str) -> str | None:
        return self.inputs.get(name)

    def with_key(self, document: RouteDocument, key: str) -> "DescribedRequest | None":
        """Returns the request with the key put where the route looks first; None if the route reads no key."""
        if document.key is None:
            return None
        match document.key.sources[0]:
            case Source("metadata", name):
                return replace(self, metadata_values={**self.metadata_values, name: key})
            case Source("parameter", name):
                return replace(self, parameters={**self.parameters, name: key})
            case Source("input", name):
                return replace(self, inputs={**self.inputs, name: key})
        return replace(self, request_id=key)
