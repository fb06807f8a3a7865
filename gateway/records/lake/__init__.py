"""The lake: segments of the write-ahead log become Parquet files, which are merged, kept and read."""
