"""What a person runs: start and end a server, check a machine, render files for a cluster."""
