"""Write docs/rest-api.md from the app's own OpenAPI description: `python tools/rest_reference.py`.

A contract test compares, so the page names every route, argument and refusal there is and none that is not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from interpreter_api.app import create_app
from interpreter_api.settings import load_settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "rest-api.md"

HEAD = """# REST API

Written by `python tools/rest_reference.py`; a contract test keeps it true. A running server serves the same at `/docs`
for reading and at `/openapi.json` for programs.

Every path but `/health`, `/ready`, `/docs`, `/openapi.json` and the signed `/dl/` links needs a key, as
`Authorization: Bearer <key>` or `X-API-Key: <key>`. A refusal is `application/problem+json` with `code`, `message`,
`remedy` and `retryable`; 401, 413 and 429 can come from any path.

```
curl -H "Authorization: Bearer $API_KEY" -H "Content-Type: application/json" \\
     -d '{"code": "1 + 1"}' http://127.0.0.1:8080/api/execute
```
"""


def page() -> str:
    """The whole page."""
    description = create_app(load_settings()).openapi()
    parts = [HEAD]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if method == "head":
                continue  # as GET, without the body
            parts.append(section(method.upper(), path, operation, description))
    return "\n".join(parts)


def section(method: str, path: str, operation: dict[str, Any], description: dict[str, Any]) -> str:
    """One route: what it is for, what it takes, what it answers."""
    lines = [f"## {method} {path}", "", operation.get("summary", "").rstrip(".") + "."]
    text = operation.get("description", "").strip()
    if text:
        lines += ["", text]
    rows = [
        (p["name"], p["in"], required(p.get("required", False)), p.get("description", ""))
        for p in operation.get("parameters", ())
        if p["in"] != "header" or p["name"].lower() not in {"range", "if-range", "if-none-match"}
    ]
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        model = referenced(content.get("schema", {}), description)
        if not model:
            rows.append(("", "body", "yes", f"The bytes, as `{media}`."))
        for field, shape in model.get("properties", {}).items():
            rows.append((field, "body", required(field in model.get("required", ())), shape.get("description", "")))
    if rows:
        lines += ["", "| Argument | In | Required | Meaning |", "| --- | --- | --- | --- |"]
        lines += ["| {} | {} | {} | {} |".format(f"`{n}`" if n else "", *rest) for n, *rest in rows]
    answers = []
    for status, answer in sorted(operation["responses"].items()):
        models = "".join(name(content.get("schema", {})) for content in answer.get("content", {}).values())
        answers.append(f"{status} {models}".strip() if status.startswith("2") else status)
    return "\n".join([*lines, "", "Answers: " + ", ".join(answers) + ".", ""])


def required(value: bool) -> str:
    """A table cell."""
    return "yes" if value else "no"


def name(schema: dict[str, Any]) -> str:
    """The model's name, marked as code."""
    reference = reference_of(schema)
    return f"`{reference.rsplit('/', 1)[-1]}`" if reference else ""


def referenced(schema: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """The model behind a reference; empty where there is none."""
    models: dict[str, dict[str, Any]] = description.get("components", {}).get("schemas", {})
    return models.get(reference_of(schema).rsplit("/", 1)[-1], {})


def reference_of(schema: dict[str, Any]) -> str:
    """The reference in a schema, also where the body may be left out."""
    choices: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return "".join(choice.get("$ref", "") for choice in choices)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}", file=sys.stderr)
