"""Django's settings, all from the environment (`portal.config.environ`): see `.env.example` for the variables."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from django.utils.csp import CSP

from portal.config import environ

ROOT = Path(__file__).resolve().parents[2]
STATE = environ.state_folder("WSLAB_STATE", ROOT / ".wslab")
DEBUG = environ.flag("WSLAB_DEBUG")
SECRET_KEY = environ.secret_key("WSLAB_SECRET_KEY", STATE / "secret_key")

# --- the lab ----------------------------------------------------------------------------------------------------------
PORTAL_URL = environ.url("WSLAB_PORTAL_URL", ("http", "https"), "http://127.0.0.1:8000") or ""
GRAFANA_URL = environ.url("GRAFANA_URL", ("http", "https"))
"""Overrides that of `lab.json`."""
LAB_FILE = Path(environ.text("WSLAB_LAB") or STATE / "lab.json")
SCENARIOS = ROOT / "scenarios"
SSH_KEY = Path(environ.text("WSLAB_SSH_KEY") or STATE / "ssh" / "id_ed25519")
"""The conductor's own private key, for labs that are reached by SSH."""
SECRETS = Path(environ.text("WSLAB_SECRETS") or STATE / "secrets")
"""A file for each secret that a scenario may name; an admin of this host fills it."""
LEASE_S = 20.0
"""A conductor that has not renewed its lease for this long is taken for dead."""
HEARTBEAT_S = 5.0
TICK_S = 5.0
TAKEOVERS = 5
"""So many conductors in a row may die over a run without one new second before it is given up."""
LOCK_FOLDER: Path | None = None
"""Where the machine's lock lies; None: the machine-wide place that `portal.runs.machine` finds."""
SCRAPE_PATIENCE_S = 4.0
"""How long preflight and judging wait for Prometheus to have a sample that they need."""

# --- Django -----------------------------------------------------------------------------------------------------------
_HTTPS = PORTAL_URL.startswith("https://")
_PROXIED = environ.flag("WSLAB_BEHIND_PROXY")
"""Its headers are believed only where there is a proxy, which overwrites what a client sent."""
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _PROXIED else None
ALLOWED_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    urlsplit(PORTAL_URL).hostname or "",
    *environ.hosts("WSLAB_ALLOWED_HOSTS"),
]
CSRF_TRUSTED_ORIGINS = [f"{urlsplit(PORTAL_URL).scheme}://{urlsplit(PORTAL_URL).netloc}"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "portal.accounts",
    "portal.retention",
    "portal.runs",
    "portal.schedules",
]
MIDDLEWARE = [
    *(["portal.config.proxy.client_address"] if _PROXIED else []),
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "portal.accounts.roles.RuleMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "portal.config.urls"
WSGI_APPLICATION = "portal.config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "portal" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en"

# --- database ---------------------------------------------------------------------------------------------------------
DATABASES = {
    "default": dj_database_url.parse(
        environ.database_url("DATABASE_URL", STATE / "portal.sqlite3"), conn_max_age=60, conn_health_checks=True
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A write that begins as a read can't wait for another's; IMMEDIATE ones queue for up to `timeout` seconds.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }

# --- who may do what --------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
# Browsers keep cookies by host without its port: two portals on one machine would log each other out.
SESSION_COOKIE_NAME = f"wslab_session_{urlsplit(PORTAL_URL).port or ''}".rstrip("_")
CSRF_COOKIE_NAME = SESSION_COOKIE_NAME.replace("session", "csrf")
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if _HTTPS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "base-uri": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
}

# --- static files: served by whitenoise straight from their folders ---
STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "portal" / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 60

# --- Celery: the row is the truth, a message only a wake-up ---
CELERY_BROKER_URL = environ.url("WSLAB_BROKER_URL", ("redis", "rediss", "redis+socket"), "redis://127.0.0.1:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A broker that is there and does not answer would hold a request, and all web threads with it, for minutes; a wake-up
# that is lost costs one tick.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 2}
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "tick"
CELERY_TASK_ROUTES = {"portal.runs.tasks.conduct": {"queue": "conduct"}}
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "portal.runs.tasks.tick", "schedule": TICK_S, "options": {"expires": TICK_S}},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(STATE / "beat-schedule")
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_TIMEZONE = "UTC"

# --- logging: one line each, to stdout ---
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "portal.config.logs.OneLine"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
    "root": {"handlers": ["stdout"], "level": "INFO"},
    # Django's own handlers would print a second copy, and mail it.
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # Three lines for every tick.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "asyncssh": {"level": "WARNING"},
    },
}
