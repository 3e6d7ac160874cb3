"""From names to folders, settings and loaded models."""
