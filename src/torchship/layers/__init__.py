"""Bytes: how wheels, Debian packages, data and source become deterministic layers."""
