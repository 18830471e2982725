"""Systems that say what an image shows, and what they share."""
