"""Admission for both wires: permissions of callers, how fast a request must arrive, how many bytes may be held."""
