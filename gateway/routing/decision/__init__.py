"""Which version answers: the interval table, the snapshot and the decision. Pure."""
