"""`python -m stack.lab`: the variables of playbooks/virtual_lab.yml for the default lab, as JSON."""

import json
import sys

from stack.lab import images, layout

hosts = layout.plan()
json.dump(images.variables(hosts, images.sources(hosts)), sys.stdout, indent=1)
print()
