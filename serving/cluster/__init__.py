"""The composition root: imports all other packages, and is the only one that imports Ray."""
