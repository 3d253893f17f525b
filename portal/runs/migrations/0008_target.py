from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_finding")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="target",
            field=models.CharField(blank=True, max_length=70),
        ),
        migrations.AddField(
            model_name="run",
            name="aim",
            field=models.JSONField(blank=True, null=True),
        ),
    ]
