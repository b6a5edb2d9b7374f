"""Losses of every stage: pure functions of parameters and arrays, no disk."""
