"""A high-throughput model serving gateway: Open Inference Protocol v2 over gRPC, routed by rules held in Redis."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels send use data to their maker unless this is set before it is loaded; see docs/security.md. Who
# wants to send them says so by the same name.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
