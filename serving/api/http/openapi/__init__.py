"""The OpenAPI document of a server and of its models."""
