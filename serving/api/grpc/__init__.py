"""gRPC: the fast door on our own HTTP/2, the plain one on grpc.aio, and the service behind both."""
