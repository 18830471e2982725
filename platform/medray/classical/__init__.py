"""Classical peers: published methods without learning, wrapped so that systems can be measured against them."""
