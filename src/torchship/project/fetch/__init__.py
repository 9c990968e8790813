"""Pins become verified files: where each may be, how it is reached, and what came of it."""
