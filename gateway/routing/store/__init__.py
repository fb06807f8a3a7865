"""The rules in Redis: commits, history, the feed that each worker follows."""
