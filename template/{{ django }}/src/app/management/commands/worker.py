from typing import Any

from django.core.management import BaseCommand

from app.main import service
from inference.logs import configure_logs
from inference.processes import work


class Command(BaseCommand):
    help = "Run a worker until it is told to stop, as `python -m app worker` does."

    def handle(self, *arguments: Any, **options: Any) -> None:
        configure_logs(json=not service().settings.development)
        work(service())
