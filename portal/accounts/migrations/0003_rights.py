from typing import Any

from django.db import migrations


def give(apps: Any, schema_editor: Any) -> None:
    """Until now everybody could do everything that there was: superusers go on as admins, all others as operators,
    and so do their tokens."""
    user = apps.get_model("accounts", "User")
    user.objects.filter(is_superuser=True).update(role="admin")
    user.objects.filter(is_superuser=False).update(role="operator")
    apps.get_model("accounts", "ApiToken").objects.update(scope="run")


class Migration(migrations.Migration):
    # Apart from the change of tables: PostgreSQL refuses both in one transaction.
    dependencies = [("accounts", "0002_roles")]

    operations = [migrations.RunPython(give, migrations.RunPython.noop)]
