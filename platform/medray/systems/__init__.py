"""One file, or a few with one prefix, per published system, in rooms by task."""
