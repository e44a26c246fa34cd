"""Base layer: errors, parts, settings and shared types, which every other folder may import. It imports none."""
