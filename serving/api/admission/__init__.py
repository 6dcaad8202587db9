"""Admission for HTTP and gRPC: permissions of callers, slow requests, bytes held, age of requests."""
