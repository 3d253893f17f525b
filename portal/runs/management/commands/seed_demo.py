"""`manage seed_demo`: a history that nobody measured, to look around in and to measure pages with."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from portal.runs.demo.keep import keep
from portal.runs.models import Run


class Command(BaseCommand):
    help = (
        "Write a made-up history: scenarios, subjects with versions, a slow regression, a jump, changes of the hosts' "
        "environment, failures, groups. Only where there is no run yet, unless told otherwise."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--runs", type=int, default=1000, help="how many (default: %(default)s)")
        parser.add_argument(
            "--seed", type=int, default=1, help="another number, another history (default: %(default)s)"
        )
        parser.add_argument("--among-others", action="store_true", help="even where there are runs already")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = options["runs"]
        if not 1 <= wanted <= 1_000_000:
            raise CommandError(f"--runs: {wanted} is refused (allowed: 1 to 1,000,000)")
        if not options["among_others"] and Run.objects.exists():
            raise CommandError(
                "there are runs already, with which made-up ones would mix: give an empty database, or --among-others"
            )
        begun = time.monotonic()
        made = keep(wanted, timezone.now(), options["seed"], self.stdout.write)
        self.stdout.write(f"{made:,} runs in {time.monotonic() - begun:.0f} s")
