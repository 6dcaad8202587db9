"""A server's side of HTTP/2 connections; knows nothing of gRPC."""
