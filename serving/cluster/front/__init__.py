"""What runs in the front's process: the index of models, loading and unloading, pages of the whole cluster."""
