"""``python -m benchmarks.models``: train what is not cached and print a table."""

from .train import main

main()
