"""Metrics, logs, traces and recordings of serving. Depends on the core's values, not on engine, protocols or Ray."""
