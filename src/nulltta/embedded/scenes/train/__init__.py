"""How the scenes world was trained: `python -m nulltta.embedded.train --world scenes`."""
