"""PyPI django-oauth-toolkit, with what it does by itself: PKCE demanded, refresh tokens that rotate, ID tokens, device
codes, revocation. Its issuer has a path. What the tests need beside it is below /test: a client, and a person who agrees.

    PORT=… FOLDER=(an empty folder) python django_server.py
"""

import json
import os
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings

PORT = int(os.environ["PORT"])
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
settings.configure(
    SECRET_KEY="only-for-tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["FOLDER"] + "/db", "OPTIONS": {"timeout": 20}}
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        f"{__name__}.signed_in",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGGING={
        "version": 1,
        "handlers": {"err": {"class": "logging.StreamHandler"}},
        "loggers": {"django": {"handlers": ["err"]}, "oauth2_provider": {"handlers": ["err"]}},
    },
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": KEY.decode(),
        "SCOPES": {"openid": "who you are", "notes:write": "write notes"},
        "ACCESS_TOKEN_EXPIRE_SECONDS": 300,
        "ALLOWED_REDIRECT_URI_SCHEMES": ["http"],
        "DEVICE_FLOW_INTERVAL": 1,
        "OAUTH_DEVICE_VERIFICATION_URI": f"http://127.0.0.1:{PORT}/o/device/",
    },
)
sys.modules["django_server"] = sys.modules[__name__]


def signed_in(get_response):
    """Whoever's cookie says a name is that person."""

    def middleware(request):
        name = request.COOKIES.get("person")
        if name:
            from django.contrib.auth.models import User

            request.user, _ = User.objects.get_or_create(username=name)
        return get_response(request)

    return middleware


django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.models import Application, get_device_grant_model
from oauth2_provider.urls import metadata_urlpatterns


@csrf_exempt
def test_client(request):
    asked = json.loads(request.body)
    kinds = {
        "authorization_code": Application.GRANT_AUTHORIZATION_CODE,
        "client_credentials": Application.GRANT_CLIENT_CREDENTIALS,
        "urn:ietf:params:oauth:grant-type:device_code": Application.GRANT_DEVICE_CODE,
    }
    # An application here has one grant.
    kind = next(kinds[g] for g in asked["grant_types"] if g in kinds)
    Application.objects.update_or_create(
        client_id=asked["client_id"],
        defaults={
            "client_secret": asked["client_secret"],
            "client_type": Application.CLIENT_CONFIDENTIAL,
            "authorization_grant_type": kind,
            "redirect_uris": " ".join(asked["redirect_uris"]),
            "algorithm": Application.RS256_ALGORITHM,
            "skip_authorization": True,
        },
    )
    return HttpResponse(status=204)


@csrf_exempt
def test_device(request):
    model = get_device_grant_model()
    user, _ = User.objects.get_or_create(username=request.POST["person"])
    grant = model.objects.get(user_code=request.POST["user_code"])
    grant.user = user
    grant.status = model.AUTHORIZED
    grant.save()
    return HttpResponse(status=204)


urlpatterns = [
    path("test/client", test_client),
    path("test/device", test_device),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    *metadata_urlpatterns,
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


call_command("migrate", verbosity=0)
make_server("127.0.0.1", PORT, get_wsgi_application(), Server).serve_forever()
