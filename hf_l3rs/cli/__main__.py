import sys

from hf_l3rs.cli.main import main


sys.exit(main())
