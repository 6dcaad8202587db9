"""Decides who may ask how much: tenants, quotas, leases, circuit breakers. Pure: time comes in as a value."""
