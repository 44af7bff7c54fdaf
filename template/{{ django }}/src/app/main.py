"""The service on Django: settings, database and storage put together."""

from __future__ import annotations

import functools
import os

import django
from django.conf import settings as django_settings
from django.db import DEFAULT_DB_ALIAS, connections

from inference.service import Service
from inference.settings import Settings, SettingsError, load_settings
from inference.storage import Storage


def set_up(url: str) -> str:
    """Make Django ready; returns the alias of the database that the URL names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
    django.setup()
    if url == django_settings.SERVICE.database_url:
        return DEFAULT_DB_ALIAS
    from .settings import database

    if url not in connections.settings:
        both = {DEFAULT_DB_ALIAS: {}, url: database(url)}
        connections.settings[url] = connections.configure_settings(both)[url]
    return url


def build_service(settings: Settings) -> Service:
    """The service on its database and storage.

    Raises:
        SettingsError: the URL of one of them is none.
    """
    alias = set_up(settings.database_url)
    from .database import DjangoStore

    try:
        storage = Storage.open(settings.storage_url)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Service(settings, DjangoStore(alias), storage)


@functools.cache
def service() -> Service:
    """The one service of a web process."""
    return build_service(load_settings())


def open_to_strangers(settings: Settings) -> str | None:
    """What lets anyone spend: nothing here, since ``caller.py`` asks for Django's own users."""
    return None
