"""`make bench-gpu`: the share of a GPU's speed that remains behind the engine. Needs torch and numpy, no network and no
Ray."""
