"""Routes that FastAPI describes but does not call: what they depend on needs none of what it does for a request.

FastAPI gives each request a stack of exit handlers, a cache and a response to fill, a third of a millisecond of the
event loop that all requests share; ours depend on the request alone, and their answers are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

_OWN = {"dependencies", "name", "call", "request_param_name", "use_cache", "path", "scope", "concurrency"}
"""The parts of a `Dependant` that are done justice to here; all others have to be empty."""


class Direct(APIRoute):
    """A route whose endpoint is a coroutine function that depends on the request, and on others such, and on no more.

    Raises `TypeError` when it is made for another one.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        _check(self.dependant)

        async def answer(request: Request) -> Response:
            response: Response = await _call(self.dependant, request)
            return response

        return answer


def _check(dependant: Dependant) -> None:
    for name in (name for name in dependant.__slots__ if name not in _OWN):
        if getattr(dependant, name):
            raise TypeError(f"{dependant.call} depends on more than the request: {name}")
    for each in dependant.dependencies:
        _check(each)


async def _call(dependant: Dependant, request: Request) -> Any:
    values: dict[str, Any] = {}
    for each in dependant.dependencies:
        found = await _call(each, request)
        if each.name is not None:
            values[each.name] = found
    if dependant.request_param_name is not None:
        values[dependant.request_param_name] = request
    assert dependant.call is not None
    return await dependant.call(**values)
