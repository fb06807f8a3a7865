# mypy: ignore-errors
"""Writes rows by the real Feast into a Redis and prints what it then holds, and what Feast itself reads, as JSON.

Run by a Python that has `feast[redis]`: `python record_feast.py HOST:PORT DIRECTORY`. What it printed once is
`feast_rows.json`.
"""

import json
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String

PROJECT = "shop"
NOW = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
TYPES = {
    "purchases": Int64,
    "visits": Int32,
    "spent": Float64,
    "score": Float32,
    "loyal": Bool,
    "city": String,
    "embedding": Array(Float32),
    "days": Array(Int64),
    "tags": Array(String),
}
ROWS = [
    (17, "de", 3, 4, 12.5, 0.25, True, "Köln", [1.0, 2.0, 3.5], [1, -2], ["a", "b"]),
    (-5, "fr", -(2**40), -7, 1e300, -0.5, False, "", [0.0, 0.0, 0.0], [2**60, 0], ["", "ü"]),
    (0, "", 0, 0, 0.0, 0.0, False, "x" * 300, [1.5, 1.5, 1.5], [0, 0], ["c", "d"]),
]


def main(address: str, directory: Path) -> None:
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    country = Entity(name="country", join_keys=["country"], value_type=ValueType.STRING)
    source = FileSource(path=str(directory / "users.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=kind) for name, kind in TYPES.items()]
    keys = [Field(name="user_id", dtype=Int64), Field(name="country", dtype=String)]
    views = [
        FeatureView(
            name="user_stats", entities=[user, country], ttl=timedelta(0), schema=[*keys, *schema], source=source
        ),
        FeatureView(name="user_only", entities=[user], ttl=timedelta(0), schema=[keys[0], *schema[:3]], source=source),
    ]
    columns = ["user_id", "country", *TYPES]
    frame = pd.DataFrame(ROWS, columns=columns)
    frame["event_timestamp"] = NOW
    frame.to_parquet(directory / "users.parquet")
    store = FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=str(directory / "registry.db"),
            online_store={"type": "redis", "connection_string": address},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, country, *views])
    store.write_to_online_store("user_stats", frame)
    store.write_to_online_store("user_only", frame[["user_id", *list(TYPES)[:3], "event_timestamp"]])
    client = redis.Redis(*address.split(":"))
    rows = {key: client.hgetall(key) for key in client.scan_iter()}
    held = {key.hex(): {field.hex(): value.hex() for field, value in row.items()} for key, row in rows.items()}
    read = store.get_online_features(
        [f"user_stats:{name}" for name in TYPES], [{"user_id": row[0], "country": row[1]} for row in ROWS]
    ).to_dict()
    print(json.dumps({"project": PROJECT, "time": NOW.timestamp(), "held": held, "read": read, "keys": entity_keys()}))


def entity_keys() -> list[dict[str, object]]:
    """Returns keys as Feast makes them, of both versions."""
    made = []
    for names, values in (
        (["user_id"], [17]),
        (["user_id"], ["u-17"]),
        (["user_id", "country"], [-1, "de"]),
        (["b", "a", "c"], ["", "ü", 2**62]),
    ):
        kinds = [Value(int64_val=value) if isinstance(value, int) else Value(string_val=value) for value in values]
        message = EntityKey(join_keys=names, entity_values=kinds)
        for version in (2, 3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                key = serialize_entity_key(message, entity_key_serialization_version=version)
            made.append({"names": names, "values": values, "version": version, "key": key.hex()})
    return made


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
