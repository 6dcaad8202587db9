"""Files for a cluster, rendered from the settings."""
