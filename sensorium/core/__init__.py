"""What every other folder may import: errors, parts, settings and shared types. It imports no other folder."""
