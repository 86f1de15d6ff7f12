"""`python -m hf_l3rs.cli`, which is `hf-l3rs`."""

import sys

from hf_l3rs.cli.main import main


sys.exit(main())
