"""The edges: servicers that translate between the wire and the engine, and nothing else."""
