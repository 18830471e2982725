"""Where things are: points and boxes."""
