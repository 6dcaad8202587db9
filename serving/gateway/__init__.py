"""The gateway: who calls, what a caller may do and how much, and the record of changes. Knows no wire and no Ray."""
