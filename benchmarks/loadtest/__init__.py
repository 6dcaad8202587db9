"""How far the load generator itself can be believed."""
