"""Load on a running gateway, every answer checked: locust users over gRPC, their scenarios and what must hold."""

import gateway  # noqa: F401 - before ONNX Runtime, which reads once whether it may send use data
