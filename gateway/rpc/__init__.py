"""gRPC transports: the same servicers over ngh2 or over grpcio."""
