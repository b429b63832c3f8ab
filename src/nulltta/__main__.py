"""`python -m nulltta`."""

import sys

from nulltta.cli import main

sys.exit(main())
