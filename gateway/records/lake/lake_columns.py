"""The columns that every row and every label of the lake has, with their SQL types; tensors add theirs."""

from collections.abc import Iterable
from typing import Final

PREDICTION_COLUMNS: Final[dict[str, str]] = {
    "ts": "TIMESTAMP WITH TIME ZONE", "request_id": "VARCHAR", "request_hash": "UBIGINT", "row_index": "INTEGER",
    "batch_size": "INTEGER", "model": "VARCHAR", "version": "VARCHAR", "version_digest": "VARCHAR", "arm": "VARCHAR",
    "is_shadow": "BOOLEAN", "primary_version": "VARCHAR", "rule_rev": "BIGINT", "reason": "VARCHAR",
    "bucket": "INTEGER", "status": "SMALLINT", "queue_us": "BIGINT", "infer_us": "BIGINT", "total_us": "BIGINT",
    "sample_p": "FLOAT", "sample_reason": "VARCHAR", "redaction_rev": "INTEGER", "redacted": "VARCHAR",
    "gateway": "VARCHAR", "worker": "VARCHAR", "boot": "BLOB", "wal_seq": "BIGINT", "record": "BIGINT",
    "pred_class": "INTEGER", "pred_score": "FLOAT",
}  # fmt: skip
LABEL_COLUMNS: Final[dict[str, str]] = {
    "model": "VARCHAR", "request_id": "VARCHAR", "request_hash": "UBIGINT", "row_index": "INTEGER",
    "label_num": "DOUBLE", "label_text": "VARCHAR", "reward": "DOUBLE", "label_ts": "TIMESTAMP WITH TIME ZONE",
    "received_ts": "TIMESTAMP WITH TIME ZONE", "source": "VARCHAR", "version": "VARCHAR",
    "predicted_ts": "TIMESTAMP WITH TIME ZONE", "gateway": "VARCHAR", "worker": "VARCHAR", "boot": "BLOB",
    "wal_seq": "BIGINT", "record": "BIGINT",
}  # fmt: skip


def listed_names(names: Iterable[str]) -> str:
    """Returns names of tensors as one text, with commas between them; a comma in a name is %2C."""
    return ",".join(sorted(name.replace(",", "%2C") for name in names))


def names_listed(text: str | None) -> frozenset[str]:
    """Returns the names that `listed_names` has made one text of."""
    return frozenset(name.replace("%2C", ",") for name in (text or "").split(",") if name)
