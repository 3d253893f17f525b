from typing import Any

from django.db import migrations

ACTS = ("UPDATE", "DELETE")


def guard(apps: Any, schema_editor: Any) -> None:
    """Have the database itself refuse to change or delete what is in the audit log."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "CREATE OR REPLACE FUNCTION accounts_auditentry_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
    for act in ACTS:
        name = f"accounts_auditentry_no_{act.lower()}"
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE {act} ON accounts_auditentry "
                "FOR EACH ROW EXECUTE FUNCTION accounts_auditentry_refuse()"
            )
        else:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE {act} ON accounts_auditentry "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )


def unguard(apps: Any, schema_editor: Any) -> None:
    on = " ON accounts_auditentry" if schema_editor.connection.vendor == "postgresql" else ""
    for act in ACTS:
        schema_editor.execute(f"DROP TRIGGER IF EXISTS accounts_auditentry_no_{act.lower()}{on}")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_rights")]

    operations = [migrations.RunPython(guard, unguard)]
