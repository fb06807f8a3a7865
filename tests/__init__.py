"""Tests, in the rooms of what they test."""

import gateway  # noqa: F401 - before ONNX Runtime, which reads once whether it may send use data
