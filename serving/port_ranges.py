"""The ports that Ray Serve and the replicas of a server take, all behind HAProxy."""

RAY_HTTP = range(30000, 31001)  # Ray Serve's own range for the replicas' HTTP servers
RAY_GRPC = range(40000, 41001)  # and for their gRPC servers
FAST_GRPC_DISTANCE = 1500  # of a replica's fast door for gRPC above the port of its gRPC server
FAST_GRPC = range(RAY_GRPC.start + FAST_GRPC_DISTANCE, RAY_GRPC.stop + FAST_GRPC_DISTANCE)
