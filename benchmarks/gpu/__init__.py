"""`make bench-gpu`: what the engine leaves of a GPU's own speed. Needs torch and numpy, no network and no Ray."""
