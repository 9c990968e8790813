"""Running: one request, started by the native engine, Docker or Podman."""
