"""StoryWorld: procedural films whose truth a program knows, and the oracle that measures films."""
