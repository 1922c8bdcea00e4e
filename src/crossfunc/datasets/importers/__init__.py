"""One module per public source, each giving the same tables."""
