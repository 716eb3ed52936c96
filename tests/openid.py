"""A provider of logins on loopback, as Hugging Face's is: it knows one person, who always agrees."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CODE = "a-code"


class Provider:
    """The server; `person` is who signs in, `token` what the page is given in their name."""

    def __init__(self, person: str, token: str, client_id: str) -> None:
        self.person, self.token, self.client_id, self.nonce = person, token, client_id, ""
        self.key = RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)
        handler = type("Handler", (_Handler,), {"provider": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What a Space with `hf_oauth: true` finds in its environment."""
        own = {"OAUTH_CLIENT_ID": self.client_id, "OAUTH_CLIENT_SECRET": "a-secret-of-the-space"}
        return own | {"OAUTH_SCOPES": "openid profile contribute-repos", "OPENID_PROVIDER_URL": self.url}

    def metadata(self) -> dict[str, object]:
        """Where everything is."""
        own = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        found = {name: f"{self.url}/{path}" for name, path in own.items()}
        return found | {"issuer": self.url, "id_token_signing_alg_values_supported": ["RS256"]}

    def tokens(self) -> dict[str, object]:
        """The token, and who it is of."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "1", "aud": self.client_id, "iat": now, "exp": now + 600, "nonce": self.nonce}
        claims |= {"preferred_username": self.person, "name": self.person, "profile": self.url, "picture": ""}
        identity = jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)
        given = {"access_token": self.token, "token_type": "bearer", "scope": "openid profile", "expires_in": 600}
        return given | {"id_token": identity}


@contextmanager
def provider(person: str, token: str) -> Iterator[Provider]:
    """A provider that answers until the end of the block."""
    running = Provider(person, token, "a-space")
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def log_message(self, *arguments):
        """Says nothing."""

    def do_GET(self):
        split = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == "/authorize":
            self.provider.nonce = asked.get("nonce", "")
            joint = "&" if "?" in asked["redirect_uri"] else "?"
            self.send_response(302)
            answer = urlencode({"code": CODE, "state": asked["state"]})
            self.send_header("Location", f"{asked['redirect_uri']}{joint}{answer}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif split.path == "/keys":
            self._json(KeySet([self.provider.key]).as_dict(private=False))
        else:
            self._json(self.provider.metadata())

    def do_POST(self):
        body = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        self._json(self.provider.tokens() if body.get("code") == [CODE] else {"error": "invalid_grant"})

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
