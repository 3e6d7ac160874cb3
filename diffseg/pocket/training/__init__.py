"""The recipes of the models in the box: `python -m diffseg.pocket.training all`."""
