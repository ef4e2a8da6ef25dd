"""MCP in front of the services: tools by topic, both protocol revisions, the SSE alias and stdio."""
