"""`python -m reparamkit`, and what torchrun starts: the command line."""

from reparamkit.cli.app import main

if __name__ == "__main__":
    main()
