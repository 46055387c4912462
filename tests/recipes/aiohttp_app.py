"""aiohttp.web: one client for the application's life, by a cleanup context."""

from collections.abc import AsyncIterator

from aiohttp import web

from deepcall_async import DeepCall, GroupUnavailable

CLIENT = web.AppKey("client", DeepCall)


async def client(app: web.Application) -> AsyncIterator[None]:
    async with DeepCall() as dc:  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
        app[CLIENT] = dc
        yield


async def relation(request: web.Request) -> web.Response:
    try:
        found = await request.app[CLIENT].groups.agent_relation(request.match_info["group_id"])
    except GroupUnavailable:
        raise web.HTTPNotFound from None
    return web.json_response(found.to_dict())


def application() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/groups/{group_id:\\d+}", relation)
    return app


if __name__ == "__main__":
    web.run_app(application())
