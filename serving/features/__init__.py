"""A feature store: what is known of an entity, written as it happens, and read when a model needs it."""
