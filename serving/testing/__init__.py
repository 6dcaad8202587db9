"""Fakes that ship: a clock moved by hand, models that do as they are told. Held to the contracts of the real ones."""
