#!/bin/sh
# The portal's container: bring the database up to date, make the first administrator, serve.
set -eu
printf '%s\n' "$WSLAB_ADMIN_PASSWORD" |
    python -m portal.manage bootstrap --skip-checks --password-stdin --token-file "$WSLAB_STATE/token"
unset WSLAB_ADMIN_PASSWORD
exec gunicorn portal.config.wsgi:application --bind 0.0.0.0:8000 --workers 1 --threads 8 \
    --graceful-timeout 5 --no-control-socket
