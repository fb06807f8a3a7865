"""Features at request time: rows of a feature store in Redis, looked up by key and answered as tensors."""
