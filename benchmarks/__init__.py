"""Measurements of the write path, as ratios to what the same server does with plain statements."""
