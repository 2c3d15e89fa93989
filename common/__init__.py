"""What several scripts share: data, networks, losses, measures, figures and runs."""

import os

# A notebook's backend is not there in a script, and matplotlib reads the variable when it is imported.
os.environ["MPLBACKEND"] = "Agg"
