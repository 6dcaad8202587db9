"""Runs the core's decisions: the engine on the event loop, the lanes in their threads."""
