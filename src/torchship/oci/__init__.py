"""Images: references, manifests, the local store, and what is exchanged with registries."""
