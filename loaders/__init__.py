"""Loaders turn a URI into a verified local directory of model files; they never import gateway."""
