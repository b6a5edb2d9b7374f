"""Filming: chunks, shots, streams, and sampling of the teacher."""
