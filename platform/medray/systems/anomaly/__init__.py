"""Finding what is not as it should be, without having been shown it."""
