"""``python -m optiprune``: the command line."""

from optiprune.cli import main

if __name__ == "__main__":
    main()
