"""`python -m stack.lab`: the variables of playbooks/virtual_lab.yml for the default lab, as JSON."""

import json
import sys

from stack.lab import images, layout

json.dump(images.variables(layout.plan()), sys.stdout, indent=1)
print()
