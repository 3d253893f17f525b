"""Django project: settings, urls, WSGI, Celery app."""
