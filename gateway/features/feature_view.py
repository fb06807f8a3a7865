"""The values of a feature view: which rows a look-up reads, what it answers, and what takes the place of what it lacks.

`gateway.features.view_parameters` reads them from a model's configuration.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from math import prod
from typing import Final

from gateway.tensor import Datatype


class RowLayout(StrEnum):
    """How a feature store keeps the rows of its entities; either way a row is a hash."""

    HASH = "hash"
    FEAST = "feast"


class HashEncoding(StrEnum):
    """How the fields of a hash that we did not write hold values: as text, or as the bytes of the tensor."""

    TEXT = "text"
    RAW = "raw"


class FeatureStatus(IntEnum):
    """What a look-up knows of a feature's value; the numbers are those of a view's status output."""

    VALUE = 0  # it is the one in the store
    MISSING = 1  # the row, or the feature in it, is not there
    STALE = 2  # it is older than the view allows
    UNREADABLE = 3  # it is not of the declared datatype and dims
    UNAVAILABLE = 4  # the store is away, or did not answer in time


class StaleRows(StrEnum):
    """What is answered for a row that is too old."""

    DEFAULT = "default"
    SERVE = "serve"
    ERROR = "error"


_ELEMENTS_OF_A_VALUE: Final = 16  # of a list that is parsed; as many cost about as much as a value by itself

# One value as a tensor holds it: raw little-endian bytes, or the elements where they are BYTES.
FeatureValue = bytes | tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StoredFeature:
    """One feature of a view: the output `name`, and the `stored` name that it has in the store.

    Shapes: `dims` are those of one row, all of them fixed. `default` is None where there is none.
    """

    name: str
    stored: str
    datatype: Datatype
    dims: tuple[int, ...]
    default: FeatureValue | None = None

    @property
    def elements(self) -> int:
        return prod(self.dims)


@dataclass(frozen=True, slots=True)
class JoinKey:
    """One input that says whose row is meant: the input `name`, and what it is called in the store."""

    name: str
    stored: str
    datatype: Datatype


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Holds what one version of a feature view looks up, and how.

    `store` names the connection that the gateway was started with. The rows' keys are made by `pattern` in the layout
    `hash`, by `project` and `key_version` in Feast's; `source` is the name of Feast's view. `timestamp` is the field of
    a hash that says when its row was true, "" where none does. `status_output` and `age_output` are the outputs that
    tell of the answer, "" where there is none.

    Units: `max_age_s`, `cache_s` 0: no limit, no cache; `cache_bytes` of one worker.
    """

    name: str
    store: str
    layout: RowLayout
    keys: tuple[JoinKey, ...]
    features: tuple[StoredFeature, ...]
    pattern: str = ""
    project: str = ""
    source: str = ""
    key_version: int = 3
    encoding: HashEncoding = HashEncoding.TEXT
    timestamp: str = ""
    max_age_s: float = 0.0
    stale_rows: StaleRows = StaleRows.DEFAULT
    deadline_ms: float = 50.0
    fails_unavailable: bool = False  # although every feature has a default
    cache_s: float = 0.0
    cache_bytes: int = 0
    status_output: str = ""
    age_output: str = ""
    outputs: tuple[str, ...] = field(default=())  # all of them, in the order of the configuration

    @property
    def row_values(self) -> int:
        """Returns how many values a row counts for: one for each feature, and more for long lists that are parsed."""
        parsed = self.encoding is not HashEncoding.RAW
        return sum(1 + (feature.elements // _ELEMENTS_OF_A_VALUE if parsed else 0) for feature in self.features)
