"""Where samples come from: sources, readers, splits, geometry, checks, writers and phantoms."""
