"""Helpers that the suites share: a real server, its clients, a sandbox of one's own."""
