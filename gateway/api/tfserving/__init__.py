"""TensorFlow Serving's protocol over the same exchanges as Open Inference Protocol v2."""
