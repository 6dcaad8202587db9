"""Runs a user's `torch.nn.Module` as a `models.base.Model`."""
