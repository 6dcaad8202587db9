"""The commands of an operator: start and stop a server, check a machine, render files for a cluster."""
