"""gRPC: the fast door on the project's own HTTP/2, the plain door on grpc.aio, and the service behind both."""
