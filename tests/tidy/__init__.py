"""The rules that the sources keep: `tables` says what is allowed where, `rules` finds what is not."""
