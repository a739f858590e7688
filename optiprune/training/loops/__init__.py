"""A small training loop that can be resumed bit for bit."""
