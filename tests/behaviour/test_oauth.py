"""OAuth 2.1 resource server: a real issuer on loopback, with real keys, in front of a real server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support import rest
from support import server as real_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

AUDIENCE = "https://code.example/mcp"


@dataclass
class Issuer:
    """An authorization server as far as a resource server sees it: its metadata and its public keys."""

    url: str
    keys: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] = field(default_factory=dict)

    def token(self, kid: str = "first", **changes: Any) -> str:
        """A valid access token, with claims changed; None removes one."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.keys[kid]
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(claims, key, algorithm, headers={"kid": kid})

    def documents(self) -> dict[str, dict[str, Any]]:
        """What is served, by path."""
        public = []
        for kid, key in self.keys.items():
            algorithm = jwt.get_algorithm_by_name("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
            public.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": public},
        }


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made: list[Issuer] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = made[0].documents().get(self.path)
            self.send_response(200 if document else 404)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    keys: dict[str, Any] = {
        "first": ec.generate_private_key(ec.SECP256R1()),
        "second": rsa.generate_private_key(65537, 2048),
    }
    made.append(Issuer(f"http://127.0.0.1:{server.server_port}", keys))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made[0]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def resource(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"OAUTH_ISSUER": issuer.url, "OAUTH_AUDIENCE": AUDIENCE, "TRUSTED_PROXIES": "127.0.0.1"}
    started = real_server.start(tmp_path_factory.mktemp("oauth") / "data", env)
    yield started
    started.stop()


@pytest.mark.covers("R04")
def test_a_client_without_a_key_learns_where_to_get_a_token(resource: Server, issuer: Issuer) -> None:
    refused = httpx2.post(resource.url + "/mcp", json={})
    rest.problem(refused, 401, "unauthorized")
    where = refused.headers["www-authenticate"].split('resource_metadata="')[1].rstrip('"')
    metadata = httpx2.get(where).json()
    assert metadata["resource"] == AUDIENCE
    assert metadata["authorization_servers"] == [issuer.url]
    assert metadata["bearer_methods_supported"] == ["header"]


@pytest.mark.covers("R04")
def test_a_token_opens_a_tenant_of_its_subject(resource: Server, issuer: Issuer) -> None:
    with rest.client(resource, issuer.token()) as alice, rest.client(resource, issuer.token("second")) as again:
        made = alice.post("/api/sessions", json={})
        assert made.status_code == 201, made.text
        session = f"/api/sessions/{made.json()['session_id']}"
        assert again.get(session).status_code == 200
    with rest.client(resource, issuer.token(sub="bob")) as bob:
        rest.problem(bob.get(session), 404, "not_found")
    with rest.client(resource) as key_holder:
        rest.problem(key_holder.get(session), 404, "not_found")


@pytest.mark.covers("R04")
@pytest.mark.attack("AU01")
def test_a_token_that_is_not_for_this_server_is_a_wrong_key(resource: Server, issuer: Issuer) -> None:
    stranger = Issuer(issuer.url, {"first": ec.generate_private_key(ec.SECP256R1())})
    wrong = {
        "another audience": issuer.token(aud="https://other.example"),
        "no audience": issuer.token(aud=None),
        "another issuer": issuer.token(iss="https://evil.example"),
        "expired": issuer.token(exp=int(time.time()) - 120),
        "no expiry": issuer.token(exp=None),
        "no subject": issuer.token(sub=None),
        "not yet valid": issuer.token(nbf=int(time.time()) + 600),
        "somebody else's signature": stranger.token(),
        "no signature": _forged(issuer, {"alg": "none", "kid": "first"}, b""),
        "the public key as a secret": _signed_with_public_key(issuer),
        "garbage": "a.b.c",
    }
    bodies = set()
    for number, (name, token) in enumerate(wrong.items()):
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": f"192.0.2.{number}"}
        answer = httpx2.get(resource.url + "/api/sessions", headers=headers)
        assert answer.status_code == 401, name
        bodies.add(answer.text)
        assert httpx2.get(resource.url + "/api/sessions", headers={"X-API-Key": token}).status_code in {401, 429}, name
    assert len(bodies) == 1
    with rest.client(resource, issuer.token()) as good:
        assert good.get("/api/sessions").status_code == 200


def _forged(issuer: Issuer, header: dict[str, str], secret: bytes) -> str:
    """A token whose header was chosen by its sender."""
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    parts = [_base64(json.dumps(part).encode()) for part in (header, claims)]
    signature = _base64(hmac.digest(secret, ".".join(parts).encode(), hashlib.sha256)) if secret else ""
    return ".".join([*parts, signature])


def _signed_with_public_key(issuer: Issuer) -> str:
    public = json.dumps(issuer.documents()["/keys"]["keys"][0]).encode()
    return _forged(issuer, {"alg": "HS256", "kid": "first"}, public)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
