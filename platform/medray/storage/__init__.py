"""Folders in object storage (S3 and what speaks its protocol), with the patience that long runs need.

    folder = Folder("s3://bucket/scans")
    folder.write("notes.txt", b"...")
    [entry.name for entry in folder.list()]

Endpoint, region and credentials come from the environment as boto3 finds them (AWS_ENDPOINT_URL, AWS_REGION, AWS_*
keys, profiles, web identity on Kubernetes); this room neither takes, keeps, prints nor pickles them.
"""

from medray.storage.failures import StorageError, StorageUnreachable
from medray.storage.folder import Entry, Folder
from medray.storage.urls import is_url

__all__ = ["Entry", "Folder", "StorageError", "StorageUnreachable", "is_url"]
