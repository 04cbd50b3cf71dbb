"""`python -m mvsa_tune`."""

import sys

from mvsa_tune.cli import main

sys.exit(main())
