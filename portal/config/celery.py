"""The Celery app: `celery -A portal.config worker -Q conduct`, and `… -Q tick -B`. Settings are `CELERY_*`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.config.settings")
app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["portal.runs"])
