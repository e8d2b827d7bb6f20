"""Starts the `edgefer` command: `python -m edgefer`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded, which takes a while on a small board, is no traceback."""
    try:
        from edgefer.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
