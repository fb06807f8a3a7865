"""The write-ahead log in a worker: requests append, a thread writes, others read. No pyarrow."""
