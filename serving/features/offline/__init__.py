"""The offline side of the feature store: its files, what was known at a time, and how raw data gets into it."""
