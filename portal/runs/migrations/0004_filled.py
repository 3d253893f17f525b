from typing import Any

from django.db import migrations

from wsnode.core.result import figures, read_result


def fill(apps: Any, schema_editor: Any) -> None:
    """What older rows would have: a first version of each scenario, and the figures of each result."""
    version = apps.get_model("runs", "ScenarioVersion")
    for row in apps.get_model("runs", "NamedScenario").objects.all():
        version.objects.create(scenario=row, number=1, content=row.content, message="before versions were kept")
    for row in apps.get_model("runs", "Summary").objects.iterator(chunk_size=20):
        row.figures = figures(read_result(row.result))
        row.save(update_fields=["figures"])


class Migration(migrations.Migration):
    # Apart from the change of tables: PostgreSQL refuses both in one transaction.
    dependencies = [("runs", "0003_planning")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
