"""Every error that Tapehouse raises on purpose.

    TapehouseError
    ├── InvalidRequest          what was asked for makes no sense (a caller can mend it)
    │   ├── UnknownInterval
    │   ├── UnknownColumn
    │   ├── InvalidTime
    │   ├── InvalidSymbol
    │   ├── InvalidToken        a page token that is not ours, or of another question
    │   ├── NotAcceptable       an answer in a format that there is not
    │   ├── UnsupportedMediaType  a body in a format that there is not
    │   └── LimitExceeded       more than a setting allows
    ├── InvalidData             rows or files that cannot be taken
    │   ├── InvalidTable        a table without the right columns or types
    │   ├── UnreadableFile      not the format that it claims to be, cut off, empty
    │   └── UnrecognisedFile    columns or times that need the user's word
    ├── NotFound                a symbol, batch or commit that is not there
    ├── Conflict                on_conflict="error" met rows that differ
    ├── Denied
    │   ├── Unauthenticated     no key, or one that is not known
    │   ├── Forbidden           a key without the scope, a Host or Origin that is not ours
    │   └── RateLimited
    ├── Unavailable             cannot answer now, may later
    │   ├── Overloaded
    │   └── ServerUnreachable   the client found nobody at that address
    ├── StoreError              the store itself
    │   ├── StoreLocked         another process owns the folder
    │   ├── StoreReadOnly
    │   ├── StoreFull           no space left; nothing was half-written
    │   ├── StoreTooNew         written by a newer version
    │   └── StoreDamaged
    ├── LogError                the log of live data
    │   ├── LogFull             no room; nothing was taken
    │   ├── LogLocked           another process has it
    │   ├── LogDamaged
    │   └── Unsettled           nobody knows yet whether it was taken; sending it again with its sequence is safe
    ├── InvalidSetting          an unknown or impossible setting stops the start
    ├── MissingExtra            an optional driver is not installed
    └── NotSupported            this backend declared that it cannot do it

Each class has a stable `code`, the HTTP `status` that the API answers with, and whether trying again can help.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TapehouseError(Exception):
    """The base of all errors here; `details` holds what a program needs beside the sentence."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(TapehouseError):
    code = "invalid_request"
    status = 400


class UnknownInterval(InvalidRequest):
    code = "unknown_interval"


class UnknownColumn(InvalidRequest):
    code = "unknown_column"


class InvalidTime(InvalidRequest):
    code = "invalid_time"


class InvalidSymbol(InvalidRequest):
    code = "invalid_symbol"


class InvalidToken(InvalidRequest):
    code = "invalid_token"


class NotAcceptable(InvalidRequest):
    code = "not_acceptable"
    status = 406


class UnsupportedMediaType(InvalidRequest):
    code = "unsupported_media_type"
    status = 415


class LimitExceeded(InvalidRequest):
    code = "limit_exceeded"
    status = 413


class InvalidData(TapehouseError):
    code = "invalid_data"
    status = 422


class InvalidTable(InvalidData):
    code = "invalid_table"


class UnreadableFile(InvalidData):
    code = "unreadable_file"


class UnrecognisedFile(InvalidData):
    code = "unrecognised_file"


class NotFound(TapehouseError):
    code = "not_found"
    status = 404


class Conflict(TapehouseError):
    code = "conflict"
    status = 409


class Denied(TapehouseError):
    code = "denied"
    status = 403


class Unauthenticated(Denied):
    code = "unauthenticated"
    status = 401


class Forbidden(Denied):
    code = "forbidden"
    status = 403


class RateLimited(Denied):
    code = "rate_limited"
    status = 429
    retryable = True


class Unavailable(TapehouseError):
    code = "unavailable"
    status = 503
    retryable = True


class Overloaded(Unavailable):
    code = "overloaded"


class ServerUnreachable(Unavailable):
    code = "server_unreachable"


class StoreError(TapehouseError):
    code = "store_error"
    status = 500


class StoreLocked(StoreError):
    code = "store_locked"
    status = 503
    retryable = True


class StoreReadOnly(StoreError):
    code = "store_read_only"
    status = 503


class StoreFull(StoreError):
    code = "store_full"
    status = 507
    retryable = True


class StoreTooNew(StoreError):
    code = "store_too_new"


class StoreDamaged(StoreError):
    code = "store_damaged"


class LogError(TapehouseError):
    code = "log_error"
    status = 500


class LogFull(LogError):
    code = "log_full"
    status = 503
    retryable = True


class LogLocked(LogError):
    code = "log_locked"
    status = 503
    retryable = True


class LogDamaged(LogError):
    code = "log_damaged"


class Unsettled(LogError):
    code = "unsettled"
    status = 503
    retryable = True


class InvalidSetting(TapehouseError):
    code = "invalid_setting"
    status = 500


class MissingExtra(TapehouseError):
    code = "missing_extra"
    status = 501


class NotSupported(TapehouseError):
    code = "not_supported"
    status = 501
