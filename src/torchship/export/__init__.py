"""Images and runs in other tools' words: CycloneDX, RO-Crate."""
