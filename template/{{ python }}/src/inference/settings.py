"""Settings from the environment and ``.env``; checked once, at start."""

from __future__ import annotations

import os
from ipaddress import ip_network
from typing import Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as NotDecoded

from .registry import Mode
from .store import Limits
from .webhook import signing_keys

API_HOST = "api.replicate.com"
NO_DATABASE = "DATABASE_URL is no sqlite:///path or postgresql://user:password@host/name (@ as %40)"


class ModelSettings(BaseModel):
    """What a setting may change about one model; prices in any one currency."""

    model_config = ConfigDict(extra="forbid")

    deployment: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    mode: Mode | None = None
    price_per_second: float | None = Field(None, ge=0)
    price_per_run: float | None = Field(None, ge=0)


class Settings(BaseSettings):
    """Every setting by its environment variable; sizes in bytes, times in seconds."""

    # A secret from a file often ends in a line feed, which no header can hold.
    model_config = SettingsConfigDict(env_ignore_empty=True, str_strip_whitespace=True)

    environment: Literal["production", "development"] = "production"
    replicate_api_token: SecretStr = SecretStr("")
    replicate_base_url: str = f"https://{API_HOST}/v1"
    replicate_webhook_secret: SecretStr = SecretStr("")
    public_url: str = ""
    database_url: str = "sqlite:///var/app.db"
    storage_url: str = "./var/outputs"
    session_secret: SecretStr = SecretStr("")
    allow_anonymous: bool = False
    model_settings: dict[str, ModelSettings] = {}
    prime: bool = False
    cancel_after_seconds: int = Field(600, ge=5)
    run_wait_seconds: int = Field(10, ge=1, le=60)
    max_output_bytes: int = Field(5 * 2**30, gt=0)
    max_upload_bytes: int = Field(100 * 2**20, gt=0)
    caller_per_minute: int = Field(30, ge=1)
    address_per_minute: int = Field(60, ge=1)
    daily_predictions: int = Field(2_000, ge=0)
    daily_seconds: float = Field(20_000, ge=0)
    forwarded_allow_ips: str = "127.0.0.1"
    worker_in_web: bool = False
    worker_concurrency: int = Field(8, ge=1)

    @property
    def development(self) -> bool:
        return self.environment == "development"

    @property
    def limits(self) -> Limits:
        return Limits(
            self.caller_per_minute,
            self.address_per_minute,
            self.daily_predictions,
            self.daily_seconds,
        )

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """The keys that a webhook may be signed with; none where no webhook is asked for."""
        secret = self.replicate_webhook_secret.get_secret_value()
        return signing_keys(secret) if secret else ()

    @property
    def emulator_origin(self) -> str | None:
        """Where outputs may come from besides Replicate: the emulator, in development only."""
        parts = urlsplit(self.replicate_base_url)
        if not self.development or parts.hostname == API_HOST:
            return None
        return f"{parts.scheme}://{parts.netloc}"

    def price(self, model: str, predict_seconds: float) -> float | None:
        """The estimated cost of one prediction, None where no price is set."""
        its = self.model_settings.get(model)
        if its is None or (its.price_per_second is None and its.price_per_run is None):
            return None
        return (its.price_per_second or 0) * predict_seconds + (its.price_per_run or 0)

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _known_proxies(cls, value: str) -> str:
        """Whose ``X-Forwarded-For`` counts; anyone else could choose their address."""
        try:
            networks = [ip_network(part.strip()) for part in value.split(",")]
        except ValueError:
            raise ValueError("addresses or networks of your proxies, with commas between") from None
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("names every address: callers could choose the one that is limited")
        return value

    @model_validator(mode="after")
    def _right(self) -> Self:
        if not self.development and urlsplit(self.replicate_base_url).hostname != API_HOST:
            raise ValueError("REPLICATE_BASE_URL is honoured in development only: unset it")
        if secret := self.replicate_webhook_secret.get_secret_value():
            signing_keys(secret)
        return self

    @property
    def missing(self) -> list[str]:
        """What the service cannot run without, each with the way out; empty where complete."""
        found = []
        if not self.replicate_api_token.get_secret_value():
            found.append("REPLICATE_API_TOKEN (from replicate.com/account/api-tokens)")
        if not self.development:
            if not self.public_url.startswith("https://"):
                found.append("PUBLIC_URL (the https address that Replicate can reach)")
            if len(self.session_secret.get_secret_value()) < 32:
                found.append("SESSION_SECRET (at least 32 random characters)")
        secret = self.replicate_webhook_secret.get_secret_value()
        if not secret and (self.public_url or not self.development):
            shown = "`uv run scripts/doctor.py --show-secret` prints it"
            found.append(f"REPLICATE_WEBHOOK_SECRET ({shown})")
        return found


class SettingsError(Exception):
    """The environment does not say what the project needs; the message names each variable."""


def load_settings(*, complete: bool = True) -> Settings:
    """Read the settings, from the environment before ``.env``.

    ``complete=False`` takes them also where something is missing: for what does not serve.

    Raises:
        SettingsError: a value is wrong, or missing.
    """
    _read_env_file()
    try:
        settings = Settings()
    except NotDecoded:
        raise SettingsError("MODEL_SETTINGS: is not JSON") from None
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name, dot, inside = ".".join(map(str, item["loc"])).partition(".")
            lines.append(f"{name.upper()}{dot}{inside}: {item['msg']}".removeprefix(": "))
        raise SettingsError("\n".join(lines).replace("Value error, ", "")) from None
    if complete and settings.missing:
        raise SettingsError("missing: " + "; ".join(settings.missing))
    return settings


def _read_env_file() -> None:
    """Put what ``.env`` says into the environment, where the storage's library reads its part."""
    for name, value in dotenv_values(os.environ.get("ENV_FILE", ".env")).items():
        if value and not os.environ.get(name):
            os.environ[name] = value
