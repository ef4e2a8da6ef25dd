"""Every router over the services, in one tuple for the app."""

from __future__ import annotations

from interpreter_api.routes import execute, files, introspection, scripts, sessions

ROUTERS = (execute.router, sessions.router, scripts.router, introspection.router, files.router)
