"""`manage ensure_admin`: the first administrator."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from portal.accounts.admission import ensure_admin


class Command(BaseCommand):
    help = "Make the first administrator, if there is none yet; the generated password is shown this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="admin")
        parser.add_argument("--json", action="store_true", help="print {username, password or null}")

    def handle(self, *args: Any, **options: Any) -> None:
        admission = ensure_admin(options["username"])
        if options["json"]:
            self.stdout.write(json.dumps(admission._asdict()))
        elif admission.password is None:
            self.stdout.write(f"There is an administrator already: {admission.username}")
        else:
            self.stdout.write(f"Made {admission.username} with the password {admission.password} (not shown again)")
