"""Files of the lake that are read alike, and the SQL of the rows of several such groups together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.drift.report.feature_columns import FeatureNaming, Renaming, by_name, by_place
from gateway.drift.report.lake_files import LakeFile
from gateway.drift.report.lake_sql import is_nested, quoted, read_files


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that are read alike: their columns and the types of these, whether the files differ in them, what the files
    say the places of features are called, and which columns are read under other names."""

    files: Sequence[LakeFile]
    columns: Mapping[str, str]
    differ: bool
    named: Mapping[str, str] = field(default_factory=dict)
    renaming: Renaming = field(default_factory=Renaming)

    @property
    def kinds(self) -> dict[str, str]:
        """The types of the columns that are read."""
        own = {name: kind for name, kind in self.columns.items() if name not in self.renaming.without}
        return own | {name: self.columns[source] for name, source in self.renaming.also.items()}


def union(groups: Sequence[FileGroup]) -> str:
    """A query of all rows of groups of files. A column that is a list here and a number there is text in all."""
    kinds: dict[str, set[str]] = {}
    for group in groups:
        for name, kind in group.kinds.items():
            kinds.setdefault(name, set()).add(kind)
    clashing = {name for name, types in kinds.items() if len(types) > 1 and any(is_nested(kind) for kind in types)}
    return " UNION ALL BY NAME ".join(_selected(group, clashing) for group in groups)


def _selected(group: FileGroup, clashing: Collection[str]) -> str:
    """The query of the rows of one group; the columns that clash are text."""
    also, without = group.renaming.also, group.renaming.without
    replaced = [
        f"{quoted(name)}::VARCHAR AS {quoted(name)}"
        for name in group.columns
        if name in clashing and name not in without
    ]
    star = "*"
    star += f" EXCLUDE ({', '.join(quoted(name) for name in sorted(without))})" if without else ""
    star += f" REPLACE ({', '.join(replaced)})" if replaced else ""
    further = "".join(
        f", {quoted(source)}{'::VARCHAR' if name in clashing else ''} AS {quoted(name)}"
        for name, source in also.items()
    )
    return f"SELECT {star}{further} FROM {read_files(group.files, union=group.differ)}"


def newest(groups: Sequence[FileGroup]) -> FeatureNaming:
    """What the newest of the files that name their features call them."""
    named = [group for group in groups if group.named]
    if not named:
        return FeatureNaming()
    last = max(named, key=lambda group: group.files[-1].end_us)
    return FeatureNaming(last.files[0].version, last.named)


def alike(groups: Sequence[FileGroup], *, places: bool) -> list[FileGroup]:
    """The files, features called as in the newest files of their version."""
    of_version: dict[tuple[str, str], list[FileGroup]] = {}
    for group in groups:
        of_version.setdefault((group.files[0].model, group.files[0].version), []).append(group)
    return [
        replace(group, renaming=by_name(group.named, group.columns, newest(own).columns, places=places))
        for own in of_version.values()
        for group in own
    ]


def placed(groups: Sequence[FileGroup], naming: FeatureNaming, *, as_sent: bool = False) -> list[FileGroup]:
    """The files, features at the places that `naming` knows and with its names; `as_sent`: at their tensors' own."""
    made = []
    for group in groups:
        version = naming.version if as_sent else group.files[0].version
        made.append(replace(group, renaming=by_place(version, group.named, group.columns, naming)))
    return made
