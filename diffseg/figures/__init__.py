"""Everything that draws with matplotlib; no other part of the package imports it."""
