"""The local backend: one Linux machine, bubblewrap, no daemon of its own."""
