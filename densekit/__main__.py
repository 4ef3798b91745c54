"""``python -m densekit`` is the ``densekit`` command."""

from densekit.cli import main

if __name__ == "__main__":
    main()
