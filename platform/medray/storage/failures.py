"""What a failed request means: over in a moment, or for the user to mend.

Sentences are made from error codes and the endpoint's host alone. What botocore says can hold urls, keys and tokens.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from medray.errors import UserError


class StorageError(UserError):
    """The storage as a whole cannot be used: access, credentials, bucket, endpoint, a full disk of the cache.

    No fault of the object that was asked for, so a case must not be set aside for it as a bad one.
    """


class StorageUnreachable(StorageError):
    """Object storage did not answer for as long as it was waited for; nothing that was written before is lost."""


class Damaged(Exception):
    """What arrived is not what the storage says it holds; worth another try."""


# The request was right; the service is busy, or what arrived there was not what was sent.
_BUSY = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequests",
    "RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "ProvisionedThroughputExceededException", "RequestTimeout", "RequestTimeoutException", "InternalError",
    "ServiceUnavailable", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "OperationAborted",
    "ConditionalRequestConflict", "PreconditionFailed", "NoSuchUpload", "IDPCommunicationError",
    "PriorRequestNotComplete", "EC2ThrottledException",
})  # fmt: skip
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_PERMANENT = {
    "NoSuchBucket": "there is no such bucket{at}",
    "AccessDenied": "access denied; these credentials may not {verb} there",
    "403": "access denied; these credentials may not {verb} there",
    "AllAccessDisabled": "access denied; the bucket is disabled",
    "AccountProblem": "access denied; the account has a problem",
    "InvalidAccessKeyId": "the access key is not known{at}; check the AWS_* variables or the profile",
    "SignatureDoesNotMatch": "the secret key does not fit the access key{at}; check the AWS_* variables or the profile",
    "InvalidToken": "the session token is not valid{at}; get new credentials",
    "ExpiredToken": "the credentials have expired; get new ones",
    "ExpiredTokenException": "the credentials have expired; get new ones",
    "TokenRefreshRequired": "the credentials have expired; get new ones",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by minutes, and requests are signed with it; set it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION to it",
    "IllegalLocationConstraintException": "the bucket is in another region; set AWS_REGION to it",
    "InvalidBucketName": "the bucket's name is not valid{at}",
    "QuotaExceeded": "the storage is full{at}",
    "XMinioStorageFull": "the storage is full{at}",
}  # fmt: skip
_OBJECT = {
    "InvalidRange": "it ends earlier than expected; it is truncated or was replaced",
    "416": "it ends earlier than expected; it is truncated or was replaced",
    "InvalidObjectState": "it is archived; restore it first",
    "EntityTooLarge": "it is larger than the storage allows",
}  # fmt: skip


def endpoint_host() -> str:
    """Host and port of the configured endpoint; empty for AWS itself. Never what else the variable holds."""
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    try:
        parts = urlsplit(given)
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return ""


def judge(error: Exception, url: str, verb: str) -> str | Exception:
    """What a failed request means.

    Args:
        error: what boto3 raised.
        url: what was asked for.
        verb: "read", "write", "list" or "delete", for the sentence about access.

    Returns:
        A few words if trying again may help; else what to raise: FileNotFoundError for an object that does not exist, a
        UserError for one that cannot be read, a StorageError that says what to mend, or ``error`` itself where it is no
        failure of storage.
    """
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    host = endpoint_host()
    at = f" at {host}" if host else ""
    match error:
        case aws.ClientError():
            return _answered(error.response, url, verb, at)
        case aws.NoCredentialsError() | aws.PartialCredentialsError() | aws.NoAuthTokenError():
            return StorageError(
                f"{url}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
                "or run where a role is attached"
            )
        case aws.ProfileNotFound():
            return StorageError(f"{url}: the profile in AWS_PROFILE does not exist")
        case aws.SSOError() | aws.TokenRetrievalError():
            return StorageError(f"{url}: the login has expired; log in again with the aws command")
        case aws.SSLError() | ssl.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return StorageError(f"{url}: the certificate{at} is not trusted; name its authority in AWS_CA_BUNDLE")
        case aws.ParamValidationError() | aws.InvalidRegionError() | aws.EndpointProviderError():
            return StorageError(f"{url}: the bucket, the name or the region is not valid for S3")
        case Damaged():
            return str(error)
        case aws.ReadTimeoutError() | aws.ConnectTimeoutError() | TimeoutError():
            return f"no answer in time{at}"
        case aws.EndpointConnectionError() | aws.ProxyConnectionError():
            return f"no connection{at}"
        case aws.MetadataRetrievalError() | aws.CredentialRetrievalError():
            return "the credentials service does not answer"
        case aws.FlexibleChecksumError() | aws.ChecksumError():
            return f"the transfer{at} was damaged"
        case (
            aws.HTTPClientError() | aws.ConnectionError() | aws.IncompleteReadError() | HTTPError() | ConnectionError()
        ):
            return f"the connection{at} broke"
        case aws.BotoCoreError():  # its text may hold what must not be told; its name is enough to look for
            return StorageError(f"{url}: boto3 cannot work with this environment ({type(error).__name__})")
    return error


def _answered(response: Mapping[str, Any], url: str, verb: str, at: str) -> str | Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return FileNotFoundError(f"{url} does not exist")
    if code in _OBJECT:
        return UserError(f"{url}: {_OBJECT[code]}")
    if code in _PERMANENT:
        return StorageError(f"{url}: {_PERMANENT[code].format(at=at, verb=verb)}")
    if code in _BUSY or status >= 500 or status == 429:
        return f"{code or 'error'}, HTTP {status}"
    return StorageError(f"{url}: the storage{at} refuses to {verb} ({code or 'no code'}, HTTP {status})")
