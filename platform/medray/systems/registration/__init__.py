"""Systems that bring two images into alignment, and what they share."""
