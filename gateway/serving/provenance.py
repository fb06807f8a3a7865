"""Where a version comes from: what its files, its model and the record of its publication say.

    .publications/<version>.json    beside the versions: who published it, when, from what (`gateway publish`)
    what the source keeps of it     MLflow's tags and run, annotations of an OCI manifest, the commit on Hugging Face
    metadata_props                  of the ONNX model
    modelcard.yaml, MLmodel         of the version's files, top-level entries whose value stands on their line

A source that is absent, or cannot be read, says nothing; of two that say the same name the first one here is believed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from loaders.loader import NO_NOTES, LocalVersion, VersionNotes
from loaders.model_signature import FILENAME as SIGNATURE

RECORDS: Final = ".publications"
MAX_RECORD_BYTES: Final = 64 << 10
_CARDS: Final = ("modelcard.yaml", "MLmodel")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}\Z", re.ASCII)
_NO_TEXT: Final = frozenset("[]{}&*!|>%@`#,?")  # begin what YAML does not take for plain text
_MAX_ENTRIES: Final = 64
_MAX_TEXT: Final = 500


class Publication(msgspec.Struct, frozen=True):
    """The record of a version: who published it, when, from where, and what was measured then.

    Units: `published_at` seconds since the epoch.
    """

    version: str
    digest: str
    publisher: str
    published_at: float
    lineage: dict[str, str] = {}
    facts: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of a version's origin. `signature` says whether it is signed, and whether that was checked.

    Units: bytes of its files; `published_s` seconds since the epoch, 0.0 where it is not known.
    """

    size_bytes: int = 0
    signature: str = ""
    publisher: str = ""
    published_s: float = 0.0
    lineage: Mapping[str, str] = field(default_factory=dict)


UNKNOWN_ORIGIN: Final = Provenance()


def record_name(version: str) -> str:
    """Returns the name of the record of a version's publication, below the model's directory."""
    return f"{RECORDS}/{version}.json"


def provenance(
    local: LocalVersion,
    metadata: Mapping[str, str],
    record: bytes | None,
    notes: VersionNotes = NO_NOTES,
    *,
    signature_checked: bool,
) -> Provenance:
    """Returns what is known of the version; `metadata` are the model's `metadata_props`.

    A record of other content than this says nothing: the version was overwritten after it was published.
    """
    publication = None if record is None else _publication(record)
    if publication is not None and publication.digest != local.digest:
        publication = None
    lineage: dict[str, str] = {}
    sources = [
        publication.lineage if publication is not None else {},
        notes.lineage,
        metadata,
        *(_card(local, name) for name in _CARDS),
    ]
    for source in sources:
        for name, value in source.items():
            if len(lineage) < _MAX_ENTRIES:
                lineage.setdefault(name[:_MAX_TEXT], value[:_MAX_TEXT])
    signed = any(entry.name == SIGNATURE for entry in local.files)
    return Provenance(
        local.size,
        "checked" if signature_checked else "not checked" if signed else "none",
        (publication.publisher if publication is not None else notes.publisher)[:_MAX_TEXT],
        publication.published_at if publication is not None else notes.published_s,
        lineage,
    )


def _publication(text: bytes) -> Publication | None:
    try:
        return msgspec.json.decode(text, type=Publication)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _card(local: LocalVersion, filename: str) -> Mapping[str, str]:
    entry = next((entry for entry in local.files if entry.name == filename), None)
    if entry is None or entry.size > MAX_RECORD_BYTES:
        return {}
    try:
        text = (local.path / filename).read_bytes().decode("utf-8", "replace")
    except OSError:
        return {}
    return dict(filter(None, map(_entry, text.splitlines())))


def _entry(line: str) -> tuple[str, str] | None:
    """Returns a top-level entry of a YAML file whose value is text on the same line; None of any other line.

    A parser of YAML takes a time that grows with the square of the depth, and these files come from anywhere.
    """
    name, colon, value = line.partition(": ")
    value = value.strip()
    if not colon or not value or _NAME.match(name) is None:
        return None
    quote = value[0]
    if quote in "'\"":
        inner, end, rest = value[1:].partition(quote)
        return (name, inner) if end and (not rest.strip() or rest.startswith(" #")) else None
    return None if quote in _NO_TEXT else (name, value.partition(" #")[0].strip())
