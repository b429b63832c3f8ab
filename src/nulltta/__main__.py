"""`python -m nulltta.cli`."""

import sys

from nulltta.cli import main

sys.exit(main())
