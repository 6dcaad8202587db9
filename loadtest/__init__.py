"""An open-loop load generator for servers of the Open Inference Protocol. Imports no code of a server."""
