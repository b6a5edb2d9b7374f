"""Measured speed: whole films, their parts, kernels, and a peer beside them."""
