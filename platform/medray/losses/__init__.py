"""Losses that two or more systems share and that PyTorch and MONAI do not have."""
