"""Every address of the service; writes to the API are guarded by ``ContractMiddleware``."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views import defaults

from inference.problems import Problem, not_found

from . import views
from .middleware import handler
from .views import methods

handler400 = handler(defaults.bad_request, Problem(400, "Bad request", "It cannot be read."))
handler403 = handler(defaults.permission_denied, Problem(403, "Forbidden", "You may not do this."))
handler404 = handler(defaults.page_not_found, not_found())
broken = Problem(500, "Server error", "The fault is ours, and logged.")
handler500 = handler(defaults.server_error, broken)

words = {"title": "Sign in", "site_header": "Sign in", "site_title": "Replicate"}
sign_in = LoginView.as_view(template_name="admin/login.html", extra_context=words)

urlpatterns = [
    path("", methods(GET=views.index)),
    path("api/models", methods(GET=views.models)),
    path("api/models/<str:key>/prime", methods(POST=views.prime)),
    path("api/files", methods(POST=views.upload)),
    path("api/predictions", methods(GET=views.page, POST=views.start)),
    path("api/predictions/<str:row_id>", methods(GET=views.get, DELETE=views.delete)),
    path("api/predictions/<str:row_id>/cancel", methods(POST=views.cancel)),
    path("api/predictions/<str:row_id>/events", methods(GET=views.events)),
    path("api/webhooks/replicate", methods(POST=views.webhook)),
    path("files/<str:file_id>/<str:index>", methods(GET=views.stored_file)),
    path("healthz", methods(GET=views.healthz)),
    path("readyz", methods(GET=views.readyz)),
    path("login", sign_in, name="login"),
    path("logout", LogoutView.as_view(next_page="login"), name="logout"),
    path("admin/", admin.site.urls),
]
