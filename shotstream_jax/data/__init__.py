"""Captions, stories and films on their way to the networks."""
