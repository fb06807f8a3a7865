"""What a model's configuration calls its features, and the columns of the log that are called so.

A feature has a place, `f.<tensor>` or `f.<tensor>_<i>`, which the model gives it, and may have a name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from gateway.records.worker.stream_schema import StreamSchema, is_flat, width
from gateway.tensor import TensorSpec

FEATURE_NAMES_PARAMETER: Final = "feature_names"  # "a,b,c": of all features of the inputs, in their order
MAX_NAME: Final = 128  # characters
FEATURE: Final = "f."  # begins the columns of features
_KEY: Final = "gateway.features"


def split_names(text: str) -> tuple[str, ...]:
    """Returns the names that the parameter lists, without the spaces around them."""
    return tuple(name.strip() for name in text.split(",")) if text.strip() else ()


def places(spec: TensorSpec) -> tuple[str, ...]:
    """Returns the places of an input's features; () where the log keeps it as lists."""
    if not is_flat(spec):
        return ()
    features = width(spec)
    if features == 1:
        return (FEATURE + spec.name,)
    return tuple(f"{FEATURE}{spec.name}_{index}" for index in range(features))


def name_features(inputs: Sequence[TensorSpec], text: str) -> tuple[tuple[TensorSpec, ...], str]:
    """Returns the inputs with the names of their features, and why they have none where the list cannot be used.

    Names are taken all or none: with one wrong, nobody knows which are right. The list is wrong where it has not as
    many names as there are features, and where a name is empty, too long, not printable, there twice (readers ignore
    case), or the place of another feature.
    """
    names = split_names(text)
    known = [place for spec in inputs for place in places(spec)]
    if wrong := _wrong(names, known):
        return tuple(inputs), f"parameters.{FEATURE_NAMES_PARAMETER}: {wrong}; features are called by their tensors"
    named, begin = [], 0
    for spec in inputs:
        end = begin + len(places(spec))
        named.append(replace(spec, features=names[begin:end]))
        begin = end
    return tuple(named), ""


def columns_by_place(schema: StreamSchema) -> dict[str, str]:
    """Returns the columns of the features that have a name, by their place."""
    columns: dict[str, str] = {}
    for spec in schema.inputs:
        names = schema.features.get(spec.name, ())
        columns |= {place: FEATURE + name for place, name in zip(places(spec), names, strict=False)}
    return {place: column for place, column in columns.items() if place != column}


def to_metadata(columns: Mapping[str, str]) -> dict[str, str]:
    """Returns what a file of the lake says of its features: the columns by their place. It says nothing of none."""
    return {_KEY: msgspec.json.encode(columns).decode()} if columns else {}


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Returns the columns by their place as a file of the lake says them; {} where it says nothing that can be read."""
    try:
        return msgspec.json.decode((metadata or {}).get(_KEY.encode(), b"{}"), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _wrong(names: Sequence[str], known: Sequence[str]) -> str:
    """Returns what is wrong with the names, "" if nothing is."""
    if len(names) != len(known):
        return f"{len(names)} names for {len(known)} features"
    taken = {place.removeprefix(FEATURE).lower(): place for place in known}
    seen: set[str] = set()
    for name, place in zip(names, known, strict=True):
        shown = f"{name[:40]!a}"
        if not name or len(name) > MAX_NAME or not name.isprintable():
            return f"{shown} must have 1 to {MAX_NAME} printable characters"
        if name.lower() in seen:
            return f"{shown} is there twice (upper and lower case are the same to readers)"
        if taken.get(name.lower(), place) != place:
            return f"{shown} is what another feature is called in its tensor"
        seen.add(name.lower())
    return ""
