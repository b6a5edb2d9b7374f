"""Training: every stage of the method, from one loop."""
