"""The commands of a Django project: those of any Python project, and manage.py's."""

from __future__ import annotations

from tests.claude import commands

SAFE = commands.SAFE
READS = commands.READS
GUARD = commands.GUARD
IN_PASSING = commands.IN_PASSING

STARTS = (
    *commands.STARTS,
    "uv run manage.py batch_generate",
    "uv run manage.py batch_generate --confirm-spend",
    "uv run python manage.py run_evaluation",
    "python manage.py train_cog_model --confirm-spend",
    "./manage.py batch_generate",
    "cd src && python ../manage.py batch_generate",
    "uv run manage.py runscript batch_generate",
    "uv run manage.py shell < scripts/batch_generate.py",
    "cat scripts/batch_generate.py | uv run manage.py shell",
    "uv run manage.py shell -c 'import scripts.batch_generate'",
    "uv run django-admin batch_generate --settings app.settings",
)
CALLS = (
    *commands.CALLS,
    "uv run manage.py shell -c 'import replicate; replicate.run(\"a/b\")'",
    "uv run manage.py shell -c 'from inference.service import Service'",
    "uv run manage.py shell -c 'import inference.gateway as g'",
    "echo 'import replicate' | uv run manage.py shell",
)
ORDINARY = (
    *commands.ORDINARY,
    "uv run manage.py makemigrations",
    "uv run manage.py migrate",
    "uv run manage.py createsuperuser --noinput",
    "uv run manage.py check --deploy",
    "uv run manage.py shell -c 'print(1)'",
    "uv run manage.py shell -c 'from app.models import Row; print(Row.objects.count())'",
    "uv run manage.py test",
    "git add manage.py scripts/batch_generate.py",
)
