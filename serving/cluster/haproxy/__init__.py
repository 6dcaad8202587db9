"""Edits the configuration of the HAProxy that Ray Serve starts."""
