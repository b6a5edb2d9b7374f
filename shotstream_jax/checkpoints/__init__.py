"""Weights on disk: official files, our checkpoint folder, and the way between them."""
