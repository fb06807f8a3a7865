"""A high-throughput model serving gateway: Open Inference Protocol v2 over gRPC, routed by rules held in Redis."""

__version__ = "0.1.0"
