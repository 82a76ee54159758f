"""``python -m frontend.openapi``: prints the OpenAPI document. Needs no server and no model."""

import sys
from importlib import metadata

from frontend.openapi.document import render

if __name__ == "__main__":
    sys.stdout.buffer.write(render(metadata.version("millrace"), indent=True) + b"\n")
