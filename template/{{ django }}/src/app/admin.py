"""The admin: predictions to look at, cancel and delete, and what each day cost."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from inference.prediction import Row, StoredFile
from inference.service import with_price

from .main import service
from .models import Prediction
from .views import send

DAYS = 31


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@admin.register(Prediction)
class PredictionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "model", "owner", "status", "storage", "created", "seconds", "estimate")
    list_filter = ("status", "storage", "model")
    search_fields = ("=id", "=replicate_id", "=owner")
    ordering = ("-created_at",)
    actions = ("cancel", "erase")
    readonly_fields = ("stored", "created", "completed", "estimate")

    @admin.display(ordering="created_at")
    def created(self, row: Prediction) -> datetime | None:
        return _when(row.created_at)

    @admin.display(ordering="completed_at")
    def completed(self, row: Prediction) -> datetime | None:
        return _when(row.completed_at)

    @admin.display(description="predict seconds", ordering="predict_seconds")
    def seconds(self, row: Prediction) -> str:
        return "" if row.predict_seconds is None else f"{row.predict_seconds:.2f}"

    @admin.display(description="estimated cost")
    def estimate(self, row: Prediction) -> str:
        its = Row(**{field.name: getattr(row, field.name) for field in fields(Row)})
        price = with_price(its, service().settings)["estimate"]
        return "no price" if price is None else f"{price:.4f}"

    @admin.display(description="stored output")
    def stored(self, row: Prediction) -> SafeString:
        parts = []
        for index, file in enumerate(row.files):
            url = reverse("admin:predictions_file", args=[row.pk, index])
            picture = file["content_type"].startswith("image/")
            shown = (
                format_html('<img src="{}" alt="" height="240">', url) if picture else file["key"]
            )
            parts.append((url, shown))
        return format_html_join(" ", '<a href="{}">{}</a>', parts)

    @admin.action(
        description="Cancel the selected predictions, and their bill", permissions=["stop"]
    )
    def cancel(self, request: HttpRequest, chosen: QuerySet[Prediction]) -> None:
        asked = [service().stop(row.pk) for row in chosen]
        count = sum(row is not None for row in asked)
        self.message_user(request, f"{count} canceled, {len(asked) - count} were over already.")

    @admin.action(
        description="Delete the selected predictions with their outputs", permissions=["erase"]
    )
    def erase(self, request: HttpRequest, chosen: QuerySet[Prediction]) -> None:
        for row in chosen:
            service().stop(row.pk, delete=True)
        self.message_user(request, "A worker erases them.", messages.SUCCESS)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path("costs/", view(self.costs), name="predictions_costs"),
            path("<str:row_id>/files/<int:index>", view(self.file), name="predictions_file"),
        ]
        return own + super().get_urls()

    def file(self, request: HttpRequest, row_id: str, index: int) -> HttpResponseBase:
        row = self.get_object(request, row_id)
        if row is None or not self.has_view_permission(request, row) or index >= len(row.files):
            raise Http404
        return send(request, StoredFile(**row.files[index]))

    def costs(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise Http404
        days: dict[str, dict[str, Any]] = defaultdict(
            lambda: {"predictions": 0, "seconds": 0.0, "estimate": 0.0, "without_price": 0}
        )
        for row in service().store.usage(time.time() - DAYS * 86_400):
            day = days[datetime.fromtimestamp(row.created_at, UTC).date().isoformat()]
            price = with_price(row, service().settings)["estimate"]
            day["predictions"] += 1
            day["seconds"] += row.predict_seconds or 0.0
            day["estimate"] += price or 0.0
            day["without_price"] += price is None
        context = self.admin_site.each_context(request) | {
            "title": "Cost per day",
            "days": sorted(days.items(), reverse=True),
            "opts": self.model._meta,
        }
        return TemplateResponse(request, "admin/predictions/costs.html", context)

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return super().has_change_permission(request)

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return super().has_delete_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
