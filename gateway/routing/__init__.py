"""The rules that choose a version: documents, the interval table, the decision, and the store that feeds them."""
