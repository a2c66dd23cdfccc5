"""What the API server answers when it does not do what was asked."""

from __future__ import annotations


class ApiError(Exception):
    """A request that was refused or got no answer.

    Attributes
    ----------
    status
        The HTTP status, or 0 where no answer came.
    reason, message
        As the API server words them.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @classmethod
    def of(cls, status: int, reason: str, message: str) -> ApiError:
        """The error of the class that belongs to an HTTP status."""
        if status == 409:
            return (AlreadyExists if reason == "AlreadyExists" else Conflict)(
                status, reason, message
            )
        chosen = {403: Forbidden, 404: NotFound, 410: Gone}.get(status)
        if chosen is None and status in {0, 429, 503}:
            chosen = Unavailable
        elif chosen is None and status >= 500:
            chosen = ServerFailed
        return (chosen or ApiError)(status, reason, message)


class Forbidden(ApiError):
    """The operator's account lacks the right, or an admission policy takes no such object."""


class NotFound(ApiError):
    """There is no such object, or no such kind of object."""


class NoSuchKind(NotFound):
    """There is no such kind of object: the answer names none that is missing."""


class Conflict(ApiError):
    """The object is not the one that was read: another version or another UID."""


class AlreadyExists(ApiError):
    """An object of that name is there already."""


class Gone(ApiError):
    """The resource version can't be watched from: too old, or unknown; list again."""


class NamespaceTerminating(ApiError):
    """Nothing is made any more in a namespace that is being deleted."""


class Unavailable(ApiError):
    """The API server is away, overloaded or broken; the same request may pass later."""


class ServerFailed(Unavailable):
    """The API server failed at this very request, as where a webhook does not answer it.

    Where that comes again for an object it is no outage but something for a person to repair.
    """


def explained(error: ApiError) -> str:
    """What went wrong with a read of the operator's own, and what gives back a right that it lacks.

    Whose right to do what is in the API server's words.
    """
    if not isinstance(error, Forbidden):
        return error.message
    return (
        f"{error.message}. The operator's rights are in this release's "
        "deploy/kustomize/base/operator-rbac.yaml, and in each namespace of --watch-namespace "
        "deploy/kustomize/watched binds them: apply them again"
    )
