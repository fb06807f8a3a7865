"""The key that keeps a caller in the same bucket, and the arithmetic from key and salt to the bucket.

    seed   = xxh3_64(salt as UTF-8, seed 0)
    point  = xxh3_64(key as UTF-8, seed) >> 32
    bucket = point * 1 000 000 >> 32

All of it is unsigned 64-bit integer arithmetic: the same in every language that has XXH3.
"""

import struct
from dataclasses import dataclass
from typing import Literal, get_args

from xxhash import xxh3_64_intdigest

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field
from gateway.routing.document.source import KEY_SOURCES, Source, parse_source

OnMissing = Literal["control", "random", "reject"]
KEY_FIELDS = ("from", "onMissing", "salt")
SALT_LIMIT = 256
SOURCE_LIMIT = 8
ON_MISSING: tuple[OnMissing, ...] = get_args(OnMissing)


@dataclass(frozen=True, slots=True)
class Key:
    """Holds where the key of a request comes from, and what happens without one.

    The first source that is there and not empty has it. `salt` is "" where the document gives none; the model's name is
    used then.
    """

    sources: tuple[Source, ...]
    on_missing: OnMissing = "control"
    salt: str = ""

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"from": [str(source) for source in self.sources]}
        if self.on_missing != "control":
            value["onMissing"] = self.on_missing
        if self.salt:
            value["salt"] = self.salt
        return value


def parse_key(field: Field) -> Key:
    section = field.section(*KEY_FIELDS)
    items = section.required("from").items(SOURCE_LIMIT, what="key sources")
    sources = tuple(parse_source(item) for item in items)
    if not sources:
        raise section.required("from").fail(f"no key source; give one of {KEY_SOURCES}")
    for index, source in enumerate(sources):
        if source in sources[:index]:
            raise items[index].fail(f"{source} is named twice")
    missing = section.field("onMissing")
    on_missing: OnMissing = missing.choice(*ON_MISSING) if missing is not None else "control"
    salt = section.field("salt")
    return Key(sources, on_missing, salt.text(limit=SALT_LIMIT) if salt is not None else "")


def seed_of(salt: str) -> int:
    """The 64-bit seed of a salt: two salts put the same keys into unrelated buckets."""
    return xxh3_64_intdigest(salt.encode())


def bucket_of(key: str, seed: int) -> int:
    """The key's bucket; Units: 0 <= bucket < 1 000 000."""
    try:
        raw = key.encode()
    except UnicodeEncodeError:  # half a surrogate pair: no UTF-8, but the same text must stay in the same bucket
        raw = key.encode("utf-8", "surrogatepass")
    return (xxh3_64_intdigest(raw, seed) >> 32) * BUCKETS >> 32


def bucket_of_draw(draw: float) -> int:
    """The bucket of a uniform draw; Units: 0 <= draw < 1."""
    return int(draw * BUCKETS)


def bucket_of_draw_salted(draw: float, seed: int) -> int:
    """A bucket from the same draw that is independent of `bucket_of_draw` and of every other seed."""
    return (xxh3_64_intdigest(struct.pack("<d", draw), seed) >> 32) * BUCKETS >> 32
