"""The tables: what ``inference`` keeps of a prediction, of a webhook and of an upload.

Times are seconds since the epoch, as in ``inference.prediction.Row``, which says what each means.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import models

STATUSES = ["pending", "starting", "processing", "succeeded", "failed", "canceled", "aborted"]
STORAGE_STATES = ["none", "pending", "stored", "expired", "failed"]


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Json(models.JSONField):
    """JSON as it came: PostgreSQL's jsonb would sort its names and change its numbers."""

    def get_internal_type(self) -> str:
        return "TextField"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return None if value is None else as_text(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)


class Prediction(models.Model):
    id = models.CharField(primary_key=True, max_length=32)
    owner = models.CharField(max_length=255)
    address = models.CharField(max_length=64)
    model = models.CharField(max_length=255)
    ref = models.CharField(max_length=512)
    input = Json()
    created_at = models.FloatField(db_index=True)
    mode = models.CharField(max_length=16)
    deployment = models.CharField(max_length=255, null=True)
    idempotency_key = models.CharField(max_length=255, null=True)
    status = models.CharField(max_length=16, choices=[(each, each) for each in STATUSES])
    storage = models.CharField(max_length=16, choices=[(each, each) for each in STORAGE_STATES])
    replicate_id = models.CharField(max_length=64, null=True, unique=True)
    version_ran = models.CharField(max_length=64, null=True)
    stream_url = models.TextField(null=True)
    remote_output = Json(null=True)
    output = Json(null=True)
    files = Json(default=list)
    error = models.TextField(null=True)
    predict_seconds = models.FloatField(null=True)
    completed_at = models.FloatField(null=True)
    sent_at = models.FloatField(null=True)
    ask_at = models.FloatField(null=True)
    cancel_requested = models.BooleanField()
    deleted_at = models.FloatField(null=True)
    erased = models.BooleanField()
    due_at = models.FloatField(null=True, db_index=True)
    leased = models.BooleanField()
    attempts = models.IntegerField()
    failures = models.IntegerField()

    class Meta:
        db_table = "predictions"
        constraints = (
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="predictions_key"),
        )
        indexes = (models.Index(fields=["owner", "created_at"], name="predictions_owner"),)

    def __str__(self) -> str:
        return self.id


class WebhookEvent(models.Model):
    id = models.CharField(primary_key=True, max_length=255)
    replicate_id = models.CharField(max_length=64, db_index=True)
    row_id = models.CharField(max_length=64, null=True, db_index=True)
    body = Json()
    received_at = models.FloatField()
    handled_at = models.FloatField(null=True)

    class Meta:
        db_table = "webhook_events"


class Upload(models.Model):
    id = models.CharField(primary_key=True, max_length=32)
    owner = models.CharField(max_length=255)
    address = models.CharField(max_length=64)
    created_at = models.FloatField(db_index=True)
    file = Json(null=True)

    class Meta:
        db_table = "uploads"
