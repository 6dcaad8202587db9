"""Shared memory: tensors in memory that a client on the same machine shares with the server."""
