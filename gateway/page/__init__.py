"""The operators' page: what a host does, as one read model, as HTML, and as it changes."""
