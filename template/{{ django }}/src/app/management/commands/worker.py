from typing import Any

from django.core.management import BaseCommand

from app.main import build_service
from inference.processes import work


class Command(BaseCommand):
    help = "Run a worker until it is told to stop, as `python -m app worker` does."

    def handle(self, *arguments: Any, **options: Any) -> None:
        work(build_service)
