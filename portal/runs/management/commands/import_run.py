"""`manage import_run`: a run of another portal."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.admission import first_admin
from portal.accounts.models import User
from portal.runs.bundle import MOST_BYTES, BadBundle
from portal.runs.importing import import_run


class Command(BaseCommand):
    help = "Take a run that another portal exported. One that is here already is never overwritten."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, nargs="+")
        parser.add_argument("--username", help="in whose name; without it, the first administrator's")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["username"]
        user = User.objects.filter(username=name, is_active=True).first() if name else first_admin()
        if user is None:
            raise CommandError(
                f"no active user {name!r}" if name else "no administrator: `manage ensure_admin` makes one"
            )
        failed = 0
        for file in options["file"]:
            try:
                with file.open("rb") as stream:
                    run = import_run(user, stream.read(MOST_BYTES + 1))
            except OSError as error:
                failed += 1
                self.stderr.write(f"{file}: {error.strerror}")
            except BadBundle as error:
                failed += 1
                self.stderr.write("\n".join(f"{file}: {line}" for line in error.lines))
            else:
                self.stdout.write(run.url)
        if failed:
            raise CommandError(f"{failed} of {len(options['file'])} not imported")
