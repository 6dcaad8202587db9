"""HTTP: the connection of the fast door, the ASGI app of a model, and the ASGI app of the front."""
