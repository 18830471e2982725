"""The only room that knows Ray: gradient loops, checkpoints, resume, workers, precision, run directories."""
