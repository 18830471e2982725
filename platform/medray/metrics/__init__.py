"""Scores with units in their names, as sums and counts that add up over cases and workers."""
