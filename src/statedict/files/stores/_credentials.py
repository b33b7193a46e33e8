"""How to reach a store: fsspec's configuration for its protocol, and otherwise what obstore finds in the environment.

fsspec's configuration (`~/.config/fsspec/conf.json`, `fsspec.config.conf`) is what other tools of the same machine use, so
the keys that s3fs and gcsfs document are translated into those of obstore.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

S3, GOOGLE, AZURE = ("s3", "s3a"), ("gs", "gcs"), ("az", "abfs", "abfss", "adl", "azure")
# Key of fsspec's file system → key of obstore's store.
OF_S3 = {"key": "access_key_id", "secret": "secret_access_key", "token": "session_token", "endpoint_url": "endpoint"}
OF_GOOGLE = {"token": "application_credentials", "endpoint_url": "base_url"}
OF_AZURE = {"account_name": "account_name", "account_key": "account_key", "sas_token": "sas_key"}
NAMES = {
    scheme: names for schemes, names in ((S3, OF_S3), (GOOGLE, OF_GOOGLE), (AZURE, OF_AZURE)) for scheme in schemes
}


def options_of(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of obstore's store for a URL, and those of its HTTP client."""
    scheme = url.partition("://")[0].lower()
    given = _configured(scheme)
    options = {theirs: given[ours] for ours, theirs in NAMES[scheme].items() if isinstance(given.get(ours), str)}
    if given.get("anon"):
        options["skip_signature"] = True
    if scheme in S3:
        options |= _s3(given, options)
    endpoint = str(options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL") or "")
    return options, {"allow_http": True} if endpoint.startswith("http://") else {}


def _s3(given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the region, and credentials of a profile through boto3, which reads `~/.aws` and knows single sign-on."""
    region = (given.get("client_kwargs") or {}).get("region_name")
    found: dict[str, Any] = {"region": region} if region else {}
    profile = given.get("profile") or os.environ.get("AWS_PROFILE")
    files = [os.environ.get(name, Path.home() / ".aws" / file) for name, file in FILES.items()]
    wanted = profile or (any(map(os.path.exists, files)) and "AWS_ACCESS_KEY_ID" not in os.environ)
    if "access_key_id" in options or "skip_signature" in options or not wanted or find_spec("boto3") is None:
        return found
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session(profile_name=profile)
    if session.get_credentials() is None:
        return found
    if session.region_name and not region:
        found["region"] = session.region_name
    return {**found, "credential_provider": Boto3CredentialProvider(session)}


FILES = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}


def _configured(scheme: str) -> dict[str, Any]:
    """Return fsspec's configuration of a protocol; empty without fsspec."""
    try:
        from fsspec.config import conf
    except ImportError:
        return {}
    return dict(conf.get(scheme) or {})
