"""Is everything there for real predictions? `uv run scripts/doctor.py`. Spends nothing.

One line for each check, with the way out where it says NO; exit code 1 if any does. With
`--show-secret` it only prints the line that `.env` needs: `… --show-secret >> .env`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import httpx

from app.main import build_service, open_to_strangers
from inference.gateway import Gateway, NoAnswer, NotSent, Refused, Throttled
from inference.models import REGISTRY
from inference.settings import Settings, SettingsError, load_settings
from inference.storage import Storage, StorageError

WEBHOOKS = "/api/webhooks/replicate"


class Wrong(Exception):
    """What a check found, and the way out."""


async def replicates_secret(settings: Settings) -> str:
    """The secret that signs the account's webhooks, as Replicate says it; Wrong without one."""
    if not settings.replicate_api_token.get_secret_value():
        raise Wrong("REPLICATE_API_TOKEN is not set: replicate.com/account/api-tokens makes one")
    gateway = Gateway(settings)
    try:
        return await gateway.webhook_secret()
    except (Refused, Throttled) as error:
        raise Wrong(str(error)) from None
    except (NotSent, NoAnswer) as error:
        raise Wrong(f"no answer from {settings.replicate_base_url}: {error}") from None
    finally:
        await gateway.aclose()


async def token(settings: Settings) -> str:
    await replicates_secret(settings)
    return "Replicate takes it"


async def webhook_secret(settings: Settings) -> str:
    shown = "`uv run scripts/doctor.py --show-secret >> .env` puts it there"
    given = settings.replicate_webhook_secret.get_secret_value().split()
    if not given:
        if settings.development and not settings.public_url:
            return "none, and none needed without PUBLIC_URL (development)"
        raise Wrong(f"REPLICATE_WEBHOOK_SECRET is not set: {shown}")
    try:
        wanted = await replicates_secret(settings)
    except Wrong:
        raise Wrong("Replicate does not say which it is: see the token") from None
    if wanted not in given:
        raise Wrong(f"REPLICATE_WEBHOOK_SECRET is not Replicate's: {shown}")
    return "is Replicate's"


async def public_address(settings: Settings) -> str:
    """Send what Replicate would, unsigned: the service, and nothing before it, must refuse it."""
    if not settings.public_url:
        if settings.development:
            return "none, so the worker asks Replicate every 2 s (development)"
        raise Wrong("PUBLIC_URL is not set: the https address of this service")
    url = settings.public_url.rstrip("/") + WEBHOOKS
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            reply = await client.post(url, json={})
    except httpx.HTTPError as error:
        raise Wrong(f"{url}: {type(error).__name__}; is the service running?") from None
    if reply.is_redirect:
        where = reply.headers["location"]
        raise Wrong(f"{url} redirects to {where}, and Replicate follows no redirect")
    if reply.status_code != 400:
        raise Wrong(f"{url} answers {reply.status_code}: another service, or a login, is before it")
    return f"{url} can be reached"


async def storage(settings: Settings) -> str:
    try:
        await Storage.open(settings.storage_url).check()
    except (StorageError, ValueError) as error:
        raise Wrong(f"STORAGE_URL {settings.storage_url}: {error}") from None
    return f"wrote to, read from and removed from {settings.storage_url}"


async def database(settings: Settings) -> str:
    try:
        await asyncio.to_thread(build_service(settings).store.overdue, 0)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise Wrong(f"{reason}; `uv run python -m app migrate` makes the tables") from None
    return "has its tables"


async def complete(settings: Settings) -> str:
    if settings.missing:
        raise Wrong(f"missing: {'; '.join(settings.missing)}")
    if reason := open_to_strangers(settings):
        raise Wrong(reason)
    if strange := settings.model_settings.keys() - REGISTRY.keys():
        raise Wrong(f"MODEL_SETTINGS has no effect on {', '.join(sorted(strange))}: no model here")
    return f"complete ({settings.environment})"


CHECKS = {
    "settings": complete,
    "token": token,
    "webhook secret": webhook_secret,
    "public address": public_address,
    "storage": storage,
    "database": database,
}


async def examine(settings: Settings) -> bool:
    """Print what each check says, as it comes; whether all is well."""
    well = True
    for name, check in CHECKS.items():
        try:
            print(f"ok  {name}: {await check(settings)}", flush=True)
        except Wrong as wrong:
            well = False
            print(f"NO  {name}: {wrong}", flush=True)
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show-secret", action="store_true", help="print the webhook secret")
    show = parser.parse_args().show_secret
    try:
        settings = load_settings(complete=False)
        if show:
            print(f"REPLICATE_WEBHOOK_SECRET={asyncio.run(replicates_secret(settings))}")
            return 0
    except (SettingsError, Wrong) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if asyncio.run(examine(settings)) else 1


if __name__ == "__main__":
    sys.exit(main())
