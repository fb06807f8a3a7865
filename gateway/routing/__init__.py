"""Which version answers: documents, the interval table, the decision, and the Redis store that feeds them."""
