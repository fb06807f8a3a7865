"""One request from admission to answer, and the life of model versions."""
