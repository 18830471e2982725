"""Which of many images to have labelled next."""
