"""The service on Django: HTTP, the database, the admin, the page."""
