"""A version is tried before it serves, and put into a repository: the checklist that a pipeline gates on."""
