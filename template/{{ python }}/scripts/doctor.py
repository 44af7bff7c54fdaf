"""Is everything there for real predictions? `uv run scripts/doctor.py`. Spends nothing."""

from __future__ import annotations

import argparse
import asyncio
import sys

import httpx

from app.main import build_service
from inference.gateway import Gateway, NoAnswer, NotSent, Refused, Throttled
from inference.service import Service
from inference.settings import Settings, SettingsError, load_settings
from inference.storage import StorageError


async def token_and_secret(settings: Settings, show: bool) -> str | None:
    """What is wrong with the token or the webhook secret, None where both fit together."""
    gateway = Gateway(settings)
    try:
        secret = await gateway.webhook_secret()
    except (Refused, Throttled, NotSent, NoAnswer) as error:
        return str(error)
    finally:
        await gateway.aclose()
    if show:
        print(f"REPLICATE_WEBHOOK_SECRET={secret}")
    if secret not in settings.replicate_webhook_secret.get_secret_value().split():
        return "REPLICATE_WEBHOOK_SECRET is not Replicate's: --show-secret prints that one"
    return None


async def public_url(settings: Settings) -> str | None:
    """What keeps webhooks away, None where the address answers as this service does."""
    if not settings.public_url:
        return "PUBLIC_URL is not set: without webhooks the worker asks every 2 s (development)"
    url = settings.public_url.rstrip("/") + "/healthz"
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            reply = await client.get(url)
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__}; is the service running?"
    if reply.is_redirect:
        return f"{url} redirects, and Replicate follows none: use {reply.headers['location']}"
    return None if reply.status_code == 200 else f"{url}: HTTP {reply.status_code}"


async def storage(service: Service) -> str | None:
    try:
        await service.storage.check()
    except StorageError as error:
        return str(error)
    return None


def database(service: Service) -> str | None:
    try:
        service.store.overdue(0)
    except Exception as error:
        return f"{type(error).__name__}: run `uv run python -m app migrate`"
    return None


async def examine(settings: Settings, show: bool) -> dict[str, str | None]:
    service = build_service(settings)
    return {
        "token and webhook secret": await token_and_secret(settings, show),
        "public address": await public_url(settings),
        "storage": await storage(service),
        "database": database(service),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show-secret", action="store_true", help="print the webhook secret")
    show = parser.parse_args().show_secret
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    found = asyncio.run(examine(settings, show))
    for name, problem in found.items():
        print(f"{'ok ' if problem is None else 'NO '} {name}{f': {problem}' if problem else ''}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
