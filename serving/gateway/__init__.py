"""The gateway: who calls, what a caller may do, and the record of what was changed. Knows no wire and no Ray."""
