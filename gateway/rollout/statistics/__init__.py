"""Always-valid statistics of a rollout, from counters that add up over workers and hosts. Pure."""
