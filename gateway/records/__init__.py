"""The prediction log: hot-path append, write-ahead log, compaction to Parquet."""
