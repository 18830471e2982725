"""Images of more pixels made from images of fewer."""
