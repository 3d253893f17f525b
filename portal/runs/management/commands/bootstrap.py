"""`manage bootstrap`: everything that a portal needs before its first start, in one process."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from portal.accounts.admission import ensure_admin, keep_token
from portal.runs.draft import Refused
from portal.runs.seed import seed_scenarios


class Command(BaseCommand):
    help = "Migrate, load the scenarios, make the first administrator and a token. Safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON instead of words")
        parser.add_argument("--token-file", type=Path, help="keep an API token of the administrator in this file")
        parser.add_argument("--username", default="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        # Standard output is for the one JSON object.
        call_command("migrate", interactive=False, verbosity=options["verbosity"], stdout=self.stderr)
        try:
            scenarios = seed_scenarios(settings.SCENARIOS)
        except Refused as error:
            raise CommandError("\n".join(error.lines)) from error
        admin = ensure_admin(options["username"])
        file: Path | None = options["token_file"]
        if file is not None:
            try:
                keep_token(file, admin.username, "stack")
            except OSError as error:
                raise CommandError(
                    f"--token-file {file}: {error.strerror}; wanted a file that can be written"
                ) from error
        if options["json"]:
            said = {**admin._asdict(), "scenarios": scenarios, "token_file": file and str(file)}
            self.stdout.write(json.dumps(said))
            return
        self.stdout.write(f"{len(scenarios)} scenarios: {', '.join(scenarios)}")
        if admin.password is not None:
            self.stdout.write(f"Made {admin.username} with the password {admin.password} (not shown again)")
