"""requests-oauthlib against the provider service: client credentials, refresh, revocation; and, since the library has
neither, discovery and introspection by hand."""

import os

# The service under test is on loopback.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests  # noqa: E402
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient, OAuth2Error  # noqa: E402
from requests.auth import HTTPBasicAuth  # noqa: E402
from requests_oauthlib import OAuth2Session  # noqa: E402

env = os.environ
issuer, client_id, secret = env["ISSUER"], env["CLIENT_ID"], env["CLIENT_SECRET"]
metadata = requests.get(f"{issuer}/.well-known/oauth-authorization-server", timeout=10).json()
assert metadata["issuer"] == issuer

if env["AUTH_METHOD"] == "client_secret_basic":
    how = {"auth": HTTPBasicAuth(client_id, secret)}
    form = {}
else:
    how = {"include_client_id": True, "client_secret": secret}
    form = {"client_id": client_id, "client_secret": secret}

session = OAuth2Session(client=BackendApplicationClient(client_id=client_id, scope=["REPO_READ"]))
token = session.fetch_token(metadata["token_endpoint"], **how)
assert token["token_type"] == "Bearer" and token["scope"] == ["REPO_READ"] and "refresh_token" not in token


def post(endpoint, data, headers=None):
    return requests.post(metadata[endpoint], data={**data, **form}, headers=headers, auth=how.get("auth"), timeout=10)


def active(value):
    return post("introspection_endpoint", {"token": value}).json()["active"]


assert active(token["access_token"])

# Its refresh is made for grants of people; any client of oauthlib that can refresh will do.
first = env["REFRESH_TOKEN"]
person = OAuth2Session(client=LegacyApplicationClient(client_id=client_id), token={"refresh_token": first})
more = {} if "auth" in how else form
fresh = person.refresh_token(metadata["token_endpoint"], refresh_token=first, auth=how.get("auth"), **more)
assert fresh["refresh_token"] != first and active(fresh["access_token"])

client = LegacyApplicationClient(client_id=client_id)
for value, hint in [(token["access_token"], "access_token"), (fresh["refresh_token"], "refresh_token")]:
    url, headers, body = client.prepare_token_revocation_request(metadata["revocation_endpoint"], value, hint)
    body = dict(pair.split("=", 1) for pair in body.split("&"))
    assert post("revocation_endpoint", body, headers).status_code == 200
    assert not active(value)
assert not active(fresh["access_token"])

try:
    OAuth2Session(client=BackendApplicationClient(client_id=client_id, scope=["SYSTEM_ADMIN"])).fetch_token(
        metadata["token_endpoint"], **how
    )
except OAuth2Error as error:
    assert error.error == "invalid_scope", error.error
else:
    raise AssertionError("no invalid_scope")
print("ok")
