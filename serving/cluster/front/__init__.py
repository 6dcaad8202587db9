"""The code of the front's process: the index of models, loading and unloading, pages about the whole cluster."""
