"""HTTP: the connection of the fast door, the application of one model, and the application of the front."""
