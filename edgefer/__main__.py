"""Starts the `edgefer` command: `python -m edgefer`."""

import sys


def main() -> None:
    """Run the command line, without a traceback for Ctrl-C during loading, which takes a while on a small board."""
    try:
        from edgefer.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
