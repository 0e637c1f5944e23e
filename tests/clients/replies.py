"""Authlib against the cases of a list on standard input: what becomes of each goes to standard output."""

import json
import sys

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet


def session(**more):
    made = OAuth2Session("us", "secret", **more)
    # The machine's proxy has no business on loopback.
    made.trust_env = False
    return made


def fetched(url):
    # As authlib.integrations.base_client gets metadata and keys.
    answer = session().request("GET", url, withhold_token=True, timeout=30)
    answer.raise_for_status()
    return answer.json()


def token(case):
    asking = session(token={"refresh_token": "spent"})
    asking.refresh_token(case["url"], refresh_token="spent", timeout=30)
    # A token is taken where a request can be made with it.
    asking.token_auth.prepare("https://api.example/", {}, None)


def discovery(case):
    metadata = fetched(case["url"] + "/.well-known/openid-configuration")
    metadata["_loaded_at"] = 0
    AuthorizationServerMetadata(metadata)


def jwks(case):
    jwt.decode(case["jwt"], KeySet.import_key_set(fetched(case["url"])), algorithms=["ES256"])


results = []
for asked in json.load(sys.stdin):
    result = {"case": asked["case"], "takes": True, "error": ""}
    try:
        {"token": token, "discovery": discovery, "jwks": jwks}[asked["kind"]](asked)
    except Exception as error:
        result.update(takes=False, error=f"{type(error).__name__}: {error}")
    results.append(result)
json.dump(results, sys.stdout)
