"""`manage bootstrap`: everything that a portal needs before its first start, in one process."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from portal.accounts.admission import ensure_admin, first_admin, is_kept_token, keep_token
from portal.runs.draft import Refused
from portal.runs.seed import kept_line, outdated, read_scenarios, seed_scenarios


class Command(BaseCommand):
    help = "Migrate, load the scenarios, make the first administrator and a token. Safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON instead of words")
        parser.add_argument("--token-file", type=Path, help="keep an API token of the administrator in this file")
        parser.add_argument("--username", default="admin")
        parser.add_argument(
            "--password-stdin", action="store_true",
            help="a line of standard input is the administrator's password, if one is made",
        )  # fmt: skip
        parser.add_argument("--set-password", action="store_true", help="also where there is an administrator already")
        parser.add_argument(
            "--check", action="store_true", help="do nothing; say as JSON what would be done, and to which database"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        password = self._password(options["username"]) if options["password_stdin"] else None
        replaced = password if options["set_password"] else None
        file: Path | None = options["token_file"]
        if options["check"]:
            self.stdout.write(json.dumps({"wanted": self._wanted(replaced, file), "database": _database()}))
            return
        # Standard output is for the one JSON object.
        call_command("migrate", interactive=False, verbosity=options["verbosity"], stdout=self.stderr)
        try:
            scenarios, kept = seed_scenarios(settings.SCENARIOS)
        except Refused as error:
            raise CommandError("\n".join(error.lines)) from error
        for name in kept:
            self.stderr.write(kept_line(name))
        admin = ensure_admin(options["username"], password)
        self._set_password(replaced)
        if file is not None:
            try:
                keep_token(file, admin.username, "stack")
            except OSError as error:
                raise CommandError(
                    f"--token-file {file}: {error.strerror}; wanted a file that can be written"
                ) from error
        if options["json"]:
            said = {**admin._asdict(), "scenarios": scenarios, "kept": kept, "token_file": file and str(file)}
            self.stdout.write(json.dumps(said))
            return
        self.stdout.write(f"{len(scenarios)} scenarios: {', '.join(scenarios)}")
        if admin.password is not None:
            self.stdout.write(f"Made {admin.username} with the password {admin.password} (not shown again)")

    def _password(self, username: str) -> str:
        password = sys.stdin.readline().rstrip("\n")
        try:
            validate_password(password)
        except ValidationError as error:
            raise CommandError(f"the password of {username}: {' '.join(error.messages)}") from error
        return password

    def _set_password(self, password: str | None) -> None:
        admin = first_admin()
        if password and admin is not None and not admin.check_password(password):
            admin.set_password(password)
            admin.save(update_fields=["password"])

    def _wanted(self, password: str | None, token_file: Path | None) -> list[str]:
        """What is to be done. Beyond a migration one can't see: the tables are another release's."""
        executor = MigrationExecutor(connection)
        loader = executor.loader
        own = loader.migrated_apps
        newer = sorted(key for key in loader.applied_migrations if key not in loader.disk_migrations and key[0] in own)
        if newer:
            raise CommandError(
                f"the database is a newer release's: {'.'.join(newer[-1])} is unknown here; "
                "wanted that release, or a copy of the database from before it"
            )
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            return [f"migration {migration.app_label}.{migration.name}" for migration, _ in plan]
        try:
            wanted = [f"scenario {name}" for name in outdated(read_scenarios(settings.SCENARIOS))]
        except Refused as error:
            raise CommandError("\n".join(error.lines)) from error
        admin = first_admin()
        if admin is None:
            return [*wanted, "administrator", *(["token"] if token_file else [])]
        if password and not admin.check_password(password):
            wanted.append(f"password of {admin.username}")
        if token_file and not is_kept_token(token_file, admin.username):
            wanted.append("token")
        return wanted


def _database() -> dict[str, str | None]:
    """Its vendor, and the file of a SQLite one."""
    is_file = connection.vendor == "sqlite"
    return {"vendor": connection.vendor, "file": str(connection.settings_dict["NAME"]) if is_file else None}
