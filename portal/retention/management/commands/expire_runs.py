"""`manage expire_runs`: what the retention rules would delete; with `--delete`, its deletion."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from portal.retention.expiry import Changed, expire, preview


class Command(BaseCommand):
    help = "Show which runs the retention rules would delete. Starred runs and baselines never expire."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--delete", metavar="SHOWN", help="delete what was shown: its `shown` as this printed it")
        parser.add_argument("--json", action="store_true", help="print JSON instead of words")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        if options["delete"]:
            try:
                deleted = expire(None, options["delete"], now)
            except Changed:
                raise CommandError(
                    "nothing was deleted: these are not the runs that would go now; run it without --delete to see them"
                ) from None
            self.stdout.write(json.dumps({"deleted": deleted}) if options["json"] else f"{deleted} runs deleted")
            return
        found = preview(now)
        if options["json"]:
            facts = {"runs": found.run_ids, "archive_bytes": found.archive_bytes, "kept": found.kept}
            self.stdout.write(json.dumps({**facts, "shown": found.digest}))
            return
        for name, count in found.by_scenario.items():
            self.stdout.write(f"{count:8,}  {name}")
        self.stdout.write(f"{len(found.run_ids):8,}  in all, {found.archive_bytes:,} bytes of archives")
        self.stdout.write(f"{found.kept:8,}  past their limits, but starred or somebody's baseline")
        if found.run_ids:
            self.stdout.write(f"To delete them: manage expire_runs --delete {found.digest}")
