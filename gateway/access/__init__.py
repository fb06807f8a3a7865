"""Who calls, what a caller may do, and how it is proven; no grpc, no sockets."""
