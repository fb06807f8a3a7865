"""Generated messages and service stubs, in a descriptor pool of their own (`pool`). Regenerate with `make protos`."""
