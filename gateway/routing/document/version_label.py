"""Version labels: names for versions, and the aliases of a model's source that some of them follow.

    labels:
      stable: "12"
      champion: {version: "12", alias: champion, approvals: 1}

A label that follows an alias begins at its version. Where the alias has led it since is a status of the route.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.routing.document.field import Field, Section

LABEL_LIMIT: Final = 64
ALIAS_LIMIT: Final = 250  # characters, as MLflow has them at most
APPROVALS_LIMIT: Final = 10
FOLLOWING_FIELDS: Final = ("version", "alias", "approvals")


@dataclass(frozen=True, slots=True)
class Following:
    """Holds which alias of the model's source a label follows: at once, or by a draft that needs `approvals`."""

    label: str
    alias: str
    approvals: int = 0


@dataclass(frozen=True, slots=True)
class VersionLabels:
    """Holds the labels of a document by name, sorted, and those of them that follow an alias."""

    versions: tuple[tuple[str, str], ...]
    following: tuple[Following, ...]


def parse_version_labels(spec: Section) -> VersionLabels:
    """Returns the labels of a document; none where it leaves them out. Raises: InvalidArgument naming the field."""
    field = spec.field("labels")
    if field is None:
        return VersionLabels((), ())
    versions: list[tuple[str, str]] = []
    following: list[Following] = []
    for name, value in field.entries(LABEL_LIMIT, what="version labels"):
        label = Field(name, value.path).name()
        if isinstance(value.value, Mapping):
            section = value.section(*FOLLOWING_FIELDS)
            approvals = section.field("approvals")
            following.append(
                Following(
                    label,
                    section.required("alias").text(limit=ALIAS_LIMIT),
                    approvals.whole(0, APPROVALS_LIMIT) if approvals is not None else 0,
                )
            )
            value = section.required("version")
        versions.append((label, value.version()))
    return VersionLabels(tuple(versions), tuple(following))


def labels_value(versions: tuple[tuple[str, str], ...], following: tuple[Following, ...]) -> dict[str, object]:
    """Returns the labels as plain data, without what is at its default."""
    value: dict[str, object] = dict(versions)
    for one in following:
        entry: dict[str, object] = {"version": value[one.label], "alias": one.alias}
        value[one.label] = entry | ({"approvals": one.approvals} if one.approvals else {})
    return value
