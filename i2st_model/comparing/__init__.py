"""The parts of a comparison: its two sides, clusters of videos and classes, the bootstrap."""
