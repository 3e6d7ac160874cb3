"""The commands of `diffseg` that are no module's own; `diffseg.__main__` calls them by name."""
