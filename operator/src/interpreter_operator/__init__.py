"""The operator: observe, plan, apply. It never touches Postgres and never runs user code.

Nothing is here yet but the room: its handlers, its pure plan and its manifests come with the custom resources.
This folder's parent is called ``operator`` and must never become importable (it would shadow the standard library's
module of that name): no ``__init__.py``, no ``conftest.py`` and no tests in it; a contract test guards that.
"""
