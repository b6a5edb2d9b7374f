"""One file a stage: its settings, and what it binds for the loop."""
