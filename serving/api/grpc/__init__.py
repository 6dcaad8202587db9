"""The gRPC wire: the fast door on this project's HTTP/2, the plain door on grpc.aio, and the service behind both."""
