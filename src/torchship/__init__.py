"""Ship a PyTorch experiment as a container image that anyone can re-run, and check."""

__version__ = "0.1.0"
