"""Load on a running gateway, every answer checked: locust users over gRPC, their scenarios and what must hold."""
