"""REST in the worker's own loop: HTTP/1.1 and HTTP/2 in, the same exchanges as gRPC behind."""
