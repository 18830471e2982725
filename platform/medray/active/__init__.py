"""Active learning: which cases to have labelled next, by whom, and a loop that forgets nothing."""
