"""The api: REST and MCP over one set of services. Stateless: what must last is in Postgres."""

from importlib.metadata import version

__version__ = version("interpreter-api")
