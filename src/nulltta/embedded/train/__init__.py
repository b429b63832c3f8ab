"""The training of the embedded model: `python -m nulltta.embedded.train --size cpu`."""
