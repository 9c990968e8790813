"""The program: ``torchship``, and ``python -m torchship``."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 100_000
"""Python looks for unreachable cycles when so many objects more were made than given up."""


def main() -> None:
    """Run the command line."""
    # A command is short, and what it makes first, its modules, it needs to its end: to look for
    # cycles among them every 700 objects takes a tenth of an edit's build.
    gc.set_threshold(_NEW_OBJECTS)
    from torchship import cli

    try:
        cli.main()
    finally:
        gc.freeze()  # nor does the interpreter look for them when it ends


if __name__ == "__main__":
    main()
