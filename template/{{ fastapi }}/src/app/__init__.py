"""The service on FastAPI: HTTP around `inference`, and its database."""
