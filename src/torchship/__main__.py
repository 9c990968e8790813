"""``python -m torchship``."""

from torchship.cli import main

if __name__ == "__main__":
    main()
