"""Stores outside of the process. Each hides its client library, and says which of its failures are passing."""
