"""Images from raw measurements."""
