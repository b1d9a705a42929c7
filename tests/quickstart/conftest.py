import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

# The quickstart's scripts are run as files, and import each other by name as Python lets files of one folder do.
sys.path.insert(0, str(QUICKSTART))
