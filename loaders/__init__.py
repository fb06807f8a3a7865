"""From a URI to a verified local directory of model files; knows nothing of serving and never imports gateway."""
