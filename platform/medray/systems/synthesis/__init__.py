"""Images made from images."""
