"""How numbers, progress and results are shown, on a terminal and in a notebook."""
