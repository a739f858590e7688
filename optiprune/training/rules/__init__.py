"""Rules that choose what leaves, and the samples that they look at."""
