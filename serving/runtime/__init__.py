"""Carries out the core's decisions: engines on the event loop, lanes in their threads."""
