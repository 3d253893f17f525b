"""Is what comes on stdin a lab.json that the portal takes? Runs on the controller; one line says why not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

try:
    from portal.labs.lab import LabError, load_lab
except ImportError as error:
    sys.exit(f"{sys.executable} cannot check lab.json ({error}): use .venv/bin/ansible-playbook, which ./wslab makes")

try:
    load_lab(Path("/dev/stdin"))
except LabError as error:
    sys.exit(str(error).replace("/dev/stdin", "lab.json"))
