"""One function in a process of its own: `python -m benchmarks.child MODULE:FUNCTION JSON` prints its answer as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main(target: str, arguments: str) -> None:
    module, function = target.split(":")
    answer = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
