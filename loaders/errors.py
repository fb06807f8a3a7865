"""The errors between a URI and its local copy.

LoaderError
├── UnsupportedUri      a URI that no loader reads
├── SourceNotFound      nothing there
├── UnsafeSource        a link, a device, a name or a layout that is refused
├── SourceTooLarge      more files or bytes than the limits allow
├── DigestMismatch      the bytes are not those that a manifest or the caller asked for
├── SignatureRefused    a required signature that is absent or does not fit the files
├── SourceChanged       the directory was written to while it was copied; retryable
├── SourceUnreadable    the file system reported an error while reading; retryable
└── StoreUnwritable     the content store could not be written (full, read-only); retryable

Texts name files relative to the version directory, never an absolute path: they are shown to clients.
"""

from typing import ClassVar, Final

# What reading an answer raises that has not the fields and types of its protocol: no defect of the gateway.
MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError)


class LoaderError(Exception):
    retryable: ClassVar[bool] = False


class UnsupportedUri(LoaderError):
    pass


class SourceNotFound(LoaderError):
    pass


class UnsafeSource(LoaderError):
    pass


class SourceTooLarge(LoaderError):
    pass


class DigestMismatch(LoaderError):
    pass


class SignatureRefused(LoaderError):
    pass


class SourceChanged(LoaderError):
    retryable = True


class SourceUnreadable(LoaderError):
    retryable = True


class StoreUnwritable(LoaderError):
    retryable = True
