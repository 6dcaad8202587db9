"""Versions of models on an object store: what they are made of, who approved them, what serves, and how it came to be.

Everything that is known of a model is the fold of its log. Nothing here needs a server or a database."""
