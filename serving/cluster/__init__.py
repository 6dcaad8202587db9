"""The composition root: the only package that sees Ray, and everyone else."""
