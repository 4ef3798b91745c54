"""The ``densekit`` command, also as ``python -m densekit``."""

import sys

from densekit.extras import require


def main() -> None:
    """Run the command line, or exit with 2 and the name of the extra that it needs."""
    try:
        require("cli", "typer", "rich", "pyarrow", "psutil")
    except ImportError as error:
        print(f"densekit: {error}", file=sys.stderr)
        sys.exit(2)
    from densekit.cli import main as run

    run()


if __name__ == "__main__":
    main()
