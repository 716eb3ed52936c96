"""The page: one panel per module, no mathematics."""
