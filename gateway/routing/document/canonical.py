"""The canonical JSON text of plain data, by which documents and routes are compared, stored and signed."""

import msgspec


def canonical_json(value: object) -> str:
    """The text with sorted names and no spaces: the same for equal data."""
    return msgspec.json.encode(value, order="deterministic").decode()
