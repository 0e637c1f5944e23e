"""Authlib against the provider service: discovery, client credentials, refresh, introspection, revocation."""

import os

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url

env = os.environ
issuer, method = env["ISSUER"], env["AUTH_METHOD"]

metadata = AuthorizationServerMetadata(requests.get(get_well_known_url(issuer, external=True), timeout=10).json())
assert metadata["issuer"] == issuer
for key in metadata.REGISTRY_KEYS:
    # RFC 8414 requires response_types_supported. Without an authorization endpoint it is an empty list, which
    # Authlib takes for a missing one.
    if key != "response_types_supported":
        getattr(metadata, f"validate_{key}")()
assert method in metadata["token_endpoint_auth_methods_supported"]


def session(secret):
    return OAuth2Session(
        env["CLIENT_ID"], secret, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method
    )


client = session(env["CLIENT_SECRET"])
token = client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", scope="REPO_READ")
assert token["token_type"] == "Bearer" and token["expires_in"] == 3600 and token["scope"] == "REPO_READ", "token"
assert "refresh_token" not in token


def active(value):
    response = client.introspect_token(metadata["introspection_endpoint"], token=value)
    return response.json()["active"]


assert active(token["access_token"])
assert client.revoke_token(metadata["revocation_endpoint"], token=token["access_token"]).status_code == 200
assert not active(token["access_token"])

first = env["REFRESH_TOKEN"]
fresh = client.refresh_token(metadata["token_endpoint"], refresh_token=first)
assert fresh["refresh_token"] != first and active(fresh["access_token"]) and active(fresh["refresh_token"])
again = client.refresh_token(metadata["token_endpoint"], refresh_token=first)
assert again["access_token"] == fresh["access_token"] and again["refresh_token"] == fresh["refresh_token"]
client.revoke_token(metadata["revocation_endpoint"], token=fresh["refresh_token"], token_type_hint="refresh_token")
assert not active(fresh["access_token"])

for attempt, code in [
    (lambda: client.refresh_token(metadata["token_endpoint"], refresh_token=fresh["refresh_token"]), "invalid_grant"),
    (
        lambda: client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", scope="SYSTEM_ADMIN"),
        "invalid_scope",
    ),
    (
        lambda: session("wrong").fetch_token(metadata["token_endpoint"], grant_type="client_credentials"),
        "invalid_client",
    ),
]:
    try:
        attempt()
    except OAuthError as error:
        assert error.error == code, error.error
    else:
        raise AssertionError(f"no {code}")
print("ok")
