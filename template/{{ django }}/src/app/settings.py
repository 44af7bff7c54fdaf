"""Django's settings, from those of the service: the environment and ``.env``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from inference.settings import NO_DATABASE, SettingsError, load_settings

SERVICE = load_settings(complete=False)
HERE = Path(__file__).parent


# Seconds (the last: milliseconds) until a server that does not answer any more counts as gone;
# without them a worker that was cut off waits for a quarter of an hour.
CUT_OFF = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5}
CUT_OFF |= {"keepalives_count": 3, "tcp_user_timeout": 30_000}


class Bounded(psycopg.Connection[Any]):
    """A host that stands still in the middle of a transaction does not keep its rows locked."""

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        made = super().connect(conninfo, **options)
        made.execute("SET idle_in_transaction_session_timeout = '30s'")
        return made


# Many threads wait for predictions, few of them ask the database at one time. While it is gone,
# each gives up after `timeout` seconds, so that some are free to say so.
POOL = {"connection_class": Bounded, "min_size": 1, "max_size": 20, "timeout": 5}


def database(url: str) -> dict[str, Any]:
    """The database that a URL names; SQLite with WAL, and writers that queue up.

    Raises:
        SettingsError: it is neither of the two, or its folder cannot be made.
    """
    scheme, _, place = url.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and place:
        try:
            parts = conninfo_to_dict(f"postgresql://{place}")
        except psycopg.ProgrammingError:  # which may hold the password
            raise SettingsError(NO_DATABASE) from None
        names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
        return {
            "ENGINE": "django.db.backends.postgresql",
            **{name: parts.pop(part, "") for name, part in names.items()},
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"pool": POOL, **CUT_OFF, **parts},
        }
    if scheme != "sqlite":
        raise SettingsError(NO_DATABASE)
    path = Path(place.removeprefix("/")).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    # NORMAL survives a killed process; a power cut may lose the last commits (FULL would not).
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": None,
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30, "init_command": pragmas},
    }


DATABASES = {"default": database(SERVICE.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DEBUG = False
# In production `python -m app web` refuses to start without SESSION_SECRET.
SECRET_KEY = SERVICE.session_secret.get_secret_value() or "development-" * 5
OWN = urlsplit(SERVICE.public_url)
ALLOWED_HOSTS = ["*"] if SERVICE.development else [OWN.hostname or "", "localhost", "127.0.0.1"]
CSRF_TRUSTED_ORIGINS = [f"{OWN.scheme}://{OWN.netloc}"] if OWN.netloc else []

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "app",
]
MIDDLEWARE = [
    "app.middleware.ContractMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "app.urls"
WSGI_APPLICATION = "app.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "page"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]

SESSION_COOKIE_NAME = "session"
if SERVICE.allow_anonymous:  # a row for each stranger who passes would fill the database
    SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not SERVICE.development
# Whatever stands in front ends TLS, and says so. Replicate follows no redirect.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = not SERVICE.development
SECURE_REDIRECT_EXEMPT = [r"^api/webhooks/", r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 0 if SERVICE.development else 30 * 86_400
# Whether all other hosts of the domain speak https is not for this project to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

STATIC_URL = "/page/"  # where the page expects its files; the admin's are beside them
STATICFILES_DIRS = [HERE / "page"]
WHITENOISE_USE_FINDERS = True  # no collectstatic before a start
# Larger bodies are refused by ContractMiddleware.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
LOGGING_CONFIG = None  # inference.logs
