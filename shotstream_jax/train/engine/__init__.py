"""The training loop: state, steps, optimizer, checkpoints, metrics, run folder."""
