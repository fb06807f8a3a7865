"""Columns of features, taken together over files that call them otherwise: by their tensors, by names, by other names.

What is counted knows a feature by its place, `f.<tensor>_<i>`; a file has it under that or under its name. The same
version has the same features at the same places whatever they are called; another version has them where their names
are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.drift.statistics.reference_profile import Profile
from gateway.records.worker.feature_names import FEATURE


@dataclass(frozen=True, slots=True)
class FeatureNaming:
    """Tells what features are called: their columns by the places that they have in `version`, "" for several."""

    version: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renaming:
    """Tells what a file is read with: `also` has further columns, by name the file's own that each is; `without` are
    those of its own that are left out."""

    also: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


def naming_of(profile: Profile) -> FeatureNaming:
    """Returns what a profile calls the features of its version."""
    features = {one.column: FEATURE + one.name for one in profile.features if one.column.startswith(FEATURE)}
    return FeatureNaming(profile.version, {place: name for place, name in features.items() if place != name})


def by_place(version: str, own: Mapping[str, str], kinds: Iterable[str], naming: FeatureNaming) -> Renaming:
    """Returns how a file of `version` is read so that the places of `naming` are columns, and its names too.

    `own` are the columns that the file says its places have, `kinds` all of its columns. In a file of another version
    that has some of the names, a place is the column of its name, and missing where there is none.
    """
    known = set(kinds)
    also = {place: column for place, column in own.items() if column in known}
    same = version == naming.version or known.isdisjoint(naming.columns.values())
    absent = set()
    for place, name in naming.columns.items():
        if not same:
            also.pop(place, None)
            if name in known:
                also[place] = name
            else:
                absent.add(place)
            continue
        source = own.get(place, place)
        if source in known and name not in known:
            also[name] = source
    return _renaming(also, known, absent)


def by_name(own: Mapping[str, str], kinds: Iterable[str], newest: Mapping[str, str], *, places: bool) -> Renaming:
    """Returns how an older file of a version is read so that its features are called as in the newest; with `places`
    they are there under their places, too."""
    known = set(kinds)
    also, left = {}, set()
    for place, name in newest.items():
        source = own.get(place, place)
        if source in known:
            if source != name and name not in known:
                also[name] = source
                left.add(source)
            if places and place not in known:
                also[place] = source
    return _renaming(also, known, set() if places else left)


def _renaming(also: Mapping[str, str], known: set[str], without: set[str]) -> Renaming:
    """A further column takes the place of one of the file's that has its name, as readers see it: they ignore case."""
    others = {name: source for name, source in also.items() if name != source}
    lowered = {name.lower() for name in others}
    return Renaming(others, frozenset({name for name in known if name.lower() in lowered} | (without & known)))
