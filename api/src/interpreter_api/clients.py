"""What to paste into MCP clients, printed when the server is ready."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path


def snippets(base_url: str, key: str, data_dir: Path, *, key_from_setting: bool) -> str:
    """Configurations for the usual clients, ready to paste.

    ``key_from_setting``: the key came by API_KEY. A desktop client starts `stdio` without our environment, so its
    configuration has to carry such a key; a generated one is found in DATA_DIR.
    """
    url = f"{base_url}/mcp"
    bearer = f"Bearer {key}"
    headers = {"Authorization": bearer}
    command = str(Path(sys.prefix) / "bin" / "power-interpreter")
    env = {"DATA_DIR": str(data_dir)} | ({"API_KEY": key} if key_from_setting else {})
    desktop = {"mcpServers": {"power-interpreter": {"command": command, "args": ["stdio"], "env": env}}}
    cursor = {"mcpServers": {"power-interpreter": {"url": url, "headers": headers}}}
    vscode = {"servers": {"power-interpreter": {"type": "http", "url": url, "headers": headers}}}
    claude_code = shlex.join(
        [
            "claude",
            "mcp",
            "add",
            "--transport",
            "http",
            "power-interpreter",
            url,
            "--header",
            f"Authorization: {bearer}",
        ]
    )
    inspector = shlex.join(
        [
            *("npx", "@modelcontextprotocol/inspector", "--cli", url, "--transport", "http"),
            *("--header", f"Authorization: {bearer}", "--method", "tools/list"),
        ]
    )
    curl = shlex.join(
        [
            *("curl", "-s", f"{base_url}/api/execute", "-H", f"Authorization: {bearer}"),
            *("-H", "Content-Type: application/json", "-d", '{"code": "1+1"}'),
        ]
    )
    sections = [
        ("Claude Code", claude_code),
        ("Claude Desktop (claude_desktop_config.json)", json.dumps(desktop, indent=2)),
        ("Cursor (.cursor/mcp.json)", json.dumps(cursor, indent=2)),
        ("VS Code (.vscode/mcp.json)", json.dumps(vscode, indent=2)),
        ("MCP Inspector", inspector),
        ("REST", curl),
    ]
    return "\n\n".join(f"{title}:\n{_indented(text)}" for title, text in sections)


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
