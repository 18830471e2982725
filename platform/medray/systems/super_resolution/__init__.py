"""Super-resolution of slices."""
