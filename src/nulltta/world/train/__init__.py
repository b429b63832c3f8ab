"""How the embedded world was trained: `python -m nulltta.world.train --size cpu`."""
