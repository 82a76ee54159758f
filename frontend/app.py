"""``create_app``: routes, middleware and error answers around the collaborators it is given.

Used by the server and by tests alike. Knows neither gunicorn nor sockets.
"""

from typing import Any

import falcon

from common.errors import StartupError
from common.routes import PLAYGROUND
from frontend.handlers import ErrorHandlers
from frontend.middleware.cors import Cors
from frontend.middleware.keys import keys_of
from frontend.middleware.rates import Rates
from frontend.middleware.tracking import Tracking
from frontend.routes.chat import ChatCompletions
from frontend.routes.completions import Completions
from frontend.routes.docs import Docs, OpenApi
from frontend.routes.generate import Generate, GenerateStream, Root
from frontend.routes.health import Health, Live, Progressing
from frontend.routes.info import Info, Metrics, Models
from frontend.routes.kserve import KServeHealth, KServeInfer, KServeMetadata
from frontend.routes.large import LargeAnswers
from frontend.routes.messages import CountTokens, Messages
from frontend.routes.platforms import Invocations, Vertex
from frontend.routes.playground import Playground
from frontend.routes.responses import STORED, Responses, nothing_stored
from frontend.routes.tokenize import ChatTokenize, Tokenize
from frontend.services import Services

App = falcon.App[falcon.Request, falcon.Response]


def create_app(services: Services) -> App:
    """The WSGI application."""
    settings = services.settings
    middleware: list[Any] = [
        Tracking(services),
        Cors(settings.cors_allow_origin),
        Rates(services.link, settings.max_concurrent_requests),
    ]
    keys = keys_of(settings, services.clock)
    if keys is not None:
        middleware.append(keys)
    app: App = falcon.App(middleware=middleware)
    ErrorHandlers(services).add_to(app)

    health, models = Health(services), Models(services)
    root = Root(services, health)
    chat, completions = ChatCompletions(services), Completions(services)
    app.add_route("/", root)
    app.add_route("/generate", Generate(services))
    app.add_route("/generate_stream", GenerateStream(services))
    large = LargeAnswers(services.clock)
    app.add_route("/tokenize", Tokenize(services, large))
    app.add_route("/chat_tokenize", ChatTokenize(services, large))
    app.add_route("/health", health)
    app.add_route("/health/live", Live())
    app.add_route("/health/ready", health)
    app.add_route("/health/progress", Progressing(services))
    app.add_route("/ping", health)
    app.add_route("/info", Info(services))
    app.add_route("/metrics", Metrics(services))
    app.add_route("/v1/chat/completions", chat)
    app.add_route("/v1/completions", completions)
    app.add_route("/v1/messages", Messages(services))
    app.add_route("/v1/messages/count_tokens", CountTokens(services))
    app.add_route("/v1/responses", Responses(services))
    app.add_sink(nothing_stored, STORED)
    app.add_route("/v1/models", models)
    app.add_route("/v1/models/{model:path}", models, suffix="one")
    document, page = OpenApi(services), Docs()
    app.add_route("/openapi.json", document)
    app.add_route("/api-doc/openapi.json", document)
    app.add_route("/docs", page)
    app.add_route("/docs/", page)
    if settings.playground:
        app.add_route(PLAYGROUND, Playground())
    app.add_route("/invocations", Invocations(services, root, chat, completions))
    _add_vertex(app, services, health)
    _add_kserve(app, services)
    return app


def _add_vertex(app: App, services: Services, health: Health) -> None:
    """``/vertex``, and the paths that the platform wants. Raises StartupError if one is taken."""
    settings, vertex = services.settings, Vertex(services)
    app.add_route("/vertex", vertex)
    wanted: list[tuple[str | None, object]] = [
        (settings.vertex_predict_route, vertex),
        (settings.vertex_health_route, health),
    ]
    for path, resource in wanted:
        if path is None:
            continue
        found = app._router.find(path)
        if found is None:
            app.add_route(path, resource)
        elif found[0] is not resource:
            raise StartupError(f"{path} is a route of its own: choose another path for Vertex AI.")


def _add_kserve(app: App, services: Services) -> None:
    health, metadata = KServeHealth(services), KServeMetadata(services)
    infer = KServeInfer(services)
    app.add_route("/v2", metadata)
    app.add_route("/v2/health/live", health)
    app.add_route("/v2/health/ready", health, suffix="ready")
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.add_route(model, metadata, suffix="model")
        app.add_route(f"{model}/ready", health, suffix="ready")
        app.add_route(f"{model}/infer", infer)
