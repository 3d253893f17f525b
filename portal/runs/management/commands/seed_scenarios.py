"""`manage seed_scenarios`: scenarios from files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.runs.draft import Refused
from portal.runs.seed import kept_line, seed_scenarios


class Command(BaseCommand):
    help = "Load scenarios/*.yaml. What was edited or archived in the portal stays as it is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?", type=Path, default=settings.SCENARIOS)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            seeded = seed_scenarios(options["folder"])
        except Refused as error:
            raise CommandError("\n".join(error.lines)) from error
        self.stdout.write(f"{len(seeded.names)} scenarios: {', '.join(seeded.names)}")
        for name in seeded.kept:
            self.stdout.write(kept_line(name))
