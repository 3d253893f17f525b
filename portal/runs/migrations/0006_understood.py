"""Stretches judged again, hosts' words at a cancel, and what pages draw of an archive."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('runs', '0005_scenarios_kept'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='archive',
            name='digest',
            field=models.BinaryField(null=True),
        ),
        migrations.AddField(
            model_name='runevent',
            name='confirms',
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.CreateModel(
            name='OtherWindow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('label', models.CharField(max_length=80)),
                ('from_s', models.PositiveIntegerField()),
                ('to_s', models.PositiveIntegerField()),
                ('result', models.JSONField()),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='other_windows', to='runs.run')),
            ],
            options={
                'ordering': ('run', 'id'),
                'constraints': [models.UniqueConstraint(fields=('run', 'from_s', 'to_s'), name='one_judgement_per_window'), models.CheckConstraint(condition=models.Q(('to_s__gt', models.F('from_s'))), name='window_has_a_length')],
            },
        ),
    ]
