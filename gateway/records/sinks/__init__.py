"""Tells where rows go beside Parquet: each sink takes from its own outbox, at its own pace."""
