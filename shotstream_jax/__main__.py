"""`python -m shotstream_jax` is the `shotstream` command."""

import sys

from shotstream_jax.cli.main import main

sys.exit(main())
