"""The exception tree. A class stands here only where a caller behaves differently for it."""


class LlmjobsError(Exception):
    """Everything that this app raises on purpose."""


class InvalidRequest(LlmjobsError):
    """What was submitted can't become a job. `param` names the field, `code` is for programs; status 400."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class RequestTooLarge(InvalidRequest):
    status = 413


class ModelNotFound(InvalidRequest):
    status = 404


class ClientNotFound(InvalidRequest):
    """No client of the caller's is called so; another's is none."""

    status = 404

    def __init__(self, message: str) -> None:
        super().__init__(message, param="LLMJobs-Client", code="client_not_found")


class IdempotencyKeyReused(InvalidRequest):
    """The same key came with another body."""

    status = 422


class IdempotencyInProgress(InvalidRequest):
    """Another request with this key has not committed yet: ask again in a second."""

    status = 409


class QueueFull(InvalidRequest):
    """Too much waits already: of this client, or of all. After `retry_after_s` seconds there may be room."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, code="queue_full")
        self.retry_after_s = retry_after_s


class InsufficientQuota(InvalidRequest):
    """The client's budget of this month is spent or promised. Coming again soon does not help."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="insufficient_quota")


class RateLimitExceeded(InvalidRequest):
    """It would wait for the client's own limit of `type`, "requests" or "tokens", and asked not to wait."""

    status = 429

    def __init__(self, message: str, *, type: str, retry_after_s: int) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.type, self.retry_after_s = type, retry_after_s


class JobNotFound(LlmjobsError):
    """No such job, or another client's: the caller can't tell which."""


class NotAllowed(LlmjobsError):
    """A verb that the job's present state does not allow; the message names both."""


class DatabaseUnavailable(LlmjobsError):
    """Postgres can't be reached just now: 503 for a request, a pause for a worker."""


class WaitTimedOut(LlmjobsError, TimeoutError):
    """A job has not ended in the time that was given; `state` is the one that it was in."""

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state
