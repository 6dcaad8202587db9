"""HTTP: the fast door's connection, the app behind it, and the front's pages."""
