"""Streaming multi-shot video generation in JAX."""
