"""The server side of HTTP/2 connections (RFC 9113). Independent of gRPC."""
