"""Videos by row: their classes and sources, and what of their features and masks is read."""
