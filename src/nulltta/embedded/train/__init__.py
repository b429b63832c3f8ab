"""How the embedded world was trained: `python -m nulltta.embedded.train --size cpu`."""
