"""HAProxy as Ray Serve starts it, with changes to its configuration."""
