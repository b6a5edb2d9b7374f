"""Films in the making, and their files on disk."""
