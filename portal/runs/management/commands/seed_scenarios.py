"""`manage seed_scenarios`: scenarios from files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.runs.draft import Refused
from portal.runs.seed import seed_scenarios


class Command(BaseCommand):
    help = "Load scenarios/*.yaml, replacing scenarios of the same name."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?", type=Path, default=settings.SCENARIOS)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            names = seed_scenarios(options["folder"])
        except Refused as error:
            raise CommandError("\n".join(error.lines)) from error
        self.stdout.write(f"{len(names)} scenarios: {', '.join(names)}")
