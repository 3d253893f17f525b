"""WSGI entry: `gunicorn portal.config.wsgi:application`."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.config.settings")
application = get_wsgi_application()

# What is loaded by now stays: looking at all of it again in each full collection cost single requests 100 ms.
gc.collect()
gc.freeze()
