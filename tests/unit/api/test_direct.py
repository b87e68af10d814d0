"""Routes that are called without FastAPI's machinery do all that they ask for, and others cannot be made."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tapehouse.api.routes.direct import Direct
from tapehouse.errors import Forbidden


async def name(request: Request) -> str:
    return request.query_params.get("name", "nobody")


async def greeting(name: Annotated[str, Depends(name)]) -> str:
    return f"hello {name}"


async def nobody_else(request: Request) -> None:
    if "name" not in request.query_params:
        raise Forbidden("who is it?")


def test_what_it_depends_on_is_found_in_any_depth_and_refusals_are_raised() -> None:
    router = APIRouter(dependencies=[Depends(nobody_else)], route_class=Direct)

    @router.get("/greet")
    async def greet(request: Request, said: Annotated[str, Depends(greeting)]) -> Response:
        return PlainTextResponse(f"{request.method} {said}")

    app = FastAPI()
    app.include_router(router)

    async def ask(**params: str) -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return (await client.get("/greet", params=params)).text

    assert asyncio.run(ask(name="Ada")) == "GET hello Ada"
    with pytest.raises(Forbidden, match="who is it"):
        asyncio.run(ask())


async def with_query(number: int) -> Response:
    return PlainTextResponse(str(number))


async def with_header(agent: Annotated[str, Header()]) -> Response:
    return PlainTextResponse(agent)


async def with_query_below(number: Annotated[Any, Depends(with_query)]) -> Response:
    return PlainTextResponse(str(number))


@pytest.mark.parametrize("endpoint", [with_query, with_header, with_query_below])
def test_what_depends_on_more_cannot_be_made(endpoint: Any) -> None:
    with pytest.raises(TypeError, match=r"depends on more than the request: (query|header)_params"):
        APIRouter(route_class=Direct).add_api_route("/", endpoint)
