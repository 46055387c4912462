"""Django: an asynchronous view. Under ASGI all requests share the client's connections.

Under WSGI, and in tests with the synchronous client, each request has an event loop of its own; the
client starts anew on each, which costs a connection.
"""

from functools import cache

from django.http import Http404, HttpRequest, JsonResponse
from django.urls import path

from deepcall_async import DeepCall, GroupUnavailable


@cache
def client() -> DeepCall:
    return DeepCall()  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL


async def relation(request: HttpRequest, group_id: int) -> JsonResponse:
    try:
        found = await client().groups.agent_relation(group_id)
    except GroupUnavailable as error:
        raise Http404 from error
    return JsonResponse(found.to_dict())


urlpatterns = [path("groups/<int:group_id>", relation)]
