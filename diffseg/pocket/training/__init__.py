"""Training the embedded models: `python -m diffseg.pocket.training all`. The recipes are in `recipes`."""
