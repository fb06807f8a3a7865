"""The decision which version answers: the interval table, the snapshot and the decision. Pure."""
