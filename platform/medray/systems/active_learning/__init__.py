"""Which cases to have labelled next, and what is learnt from their labels."""
