"""How the scenes world was trained: `python -m nulltta.embedded.scenes.train`."""
