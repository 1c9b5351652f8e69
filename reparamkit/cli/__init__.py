"""The command line: arguments in, calls of the public API, exit status out. One file per command."""


def main() -> None:
    """Run the command line and exit: what the script `reparamkit` starts."""
    from reparamkit.cli.app import main as run

    run()
