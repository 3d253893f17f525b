"""`manage issue_token`: a token for the API."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.admission import NoSuchUser, issue_token
from portal.accounts.models import Scope


class Command(BaseCommand):
    help = "Make an API token and print it, this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True)
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument(
            "--scope", choices=Scope.values, default=Scope.RUN,
            help="read; run: queue and cancel too (default); admin: all that the user may",
        )  # fmt: skip
        parser.add_argument("--hours", type=float, help="until it expires; without it, never")

    def handle(self, *args: Any, **options: Any) -> None:
        hours = options["hours"]
        if hours is not None and not 0 < hours <= 10 * 366 * 24:
            raise CommandError(f"--hours {hours:g}: wanted more than 0, and at most ten years")
        try:
            text = issue_token(options["username"], options["name"], hours and timedelta(hours=hours), options["scope"])
        except NoSuchUser as error:
            raise CommandError(str(error)) from error
        self.stdout.write(text)
